"""Predicting an image or a folder of images into files."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torchvision.transforms.v2 import functional as F

from botvision.errors import BotvisionError
from botvision.files import replacing, write_json
from botvision.images.decode import read_image
from botvision.predict.predictor import Predictor
from botvision.tasks.detection.draw import draw_detections
from botvision.tasks.detection.metrics import coco_results


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    output: Path,
    *,
    score: float = 0.5,
    skip_bad: bool = False,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write overlays and ``predictions.json`` for images.

    ``predictions.json`` holds ``images`` (id, file name, size), ``categories``, ``annotations``,
    the records of COCO's results format, and ``skipped`` (file name and reason). An image that
    cannot be read stops the work before anything is written for it, or is skipped.

    Args:
        predictor: See ``load``.
        paths: The images, at least one, see ``find_images``.
        output: Folder to write to; made if need be. Below it the overlays lie as the images
            do below the folder they have in common.
        score: Smallest score to keep.
        skip_bad: Go on without images that cannot be read.
        progress: Called with the images done and their total.

    Returns:
        What was written as ``predictions.json``.

    Raises:
        BotvisionError: If an image is missing or none, or with ``skip_bad`` all are, or an
            overlay would replace a source.
    """
    # Folders are resolved and images are not: a link is an image of the folder it lies in.
    places = [path.parent.resolve() / path.name for path in paths]
    root = Path(os.path.commonpath([place.parent for place in places]))
    if output.resolve() == root:
        raise BotvisionError(f"--output {output}: expected another folder than the images'")
    names = file_names(paths)
    overlays = _overlays(names)
    taken = {output.resolve() / overlay for overlay in overlays} & set(places)
    if taken:
        raise BotvisionError(f"--output {output}: {min(taken)} is one of the images")
    if output.exists() and not output.is_dir():
        raise BotvisionError(f"--output {output}: expected a folder, got a file")
    skipped = _unreadable(paths, names, skip_bad=skip_bad)
    output.mkdir(parents=True, exist_ok=True)
    names_of_classes = [category.name for category in predictor.categories]
    content: dict[str, Any] = {
        "images": [],
        "categories": [vars(category) for category in predictor.categories],
        "annotations": [],
        "skipped": list(skipped.values()),
    }
    for number, (path, name, place) in enumerate(zip(paths, names, overlays, strict=True), start=1):
        if path in skipped:
            continue
        image = F.pil_to_tensor(read_image(path))
        detections = predictor.detect(image, score=score)
        records = coco_results(detections, number, predictor.categories)
        content["images"].append(
            {
                "id": number,
                "file_name": name.as_posix(),
                "width": image.shape[2],
                "height": image.shape[1],
            }
        )
        content["annotations"].extend(records)
        overlay = output / place
        overlay.parent.mkdir(parents=True, exist_ok=True)
        with replacing(overlay) as temporary:
            draw_detections(image, detections, names_of_classes).save(temporary)
        progress(number, len(paths))
    write_json(output / "predictions.json", content)
    return content


def file_names(paths: Sequence[Path]) -> list[Path]:
    """Paths of images from the nearest folder that holds them all."""
    # Folders are resolved and images are not: a link is an image of the folder it lies in.
    places = [path.parent.resolve() / path.name for path in paths]
    root = os.path.commonpath([place.parent for place in places])
    return [place.relative_to(root) for place in places]


def _unreadable(
    paths: Sequence[Path], names: Sequence[Path], *, skip_bad: bool
) -> dict[Path, dict[str, str]]:
    """What is wrong with images that cannot be read, by path."""
    found = {}
    for path, name in zip(paths, names, strict=True):
        try:
            read_image(path)
        except BotvisionError as error:
            if not skip_bad:
                raise
            found[path] = {"file_name": name.as_posix(), "reason": str(error)}
    if len(found) == len(paths):
        raise BotvisionError(f"none of the images can be read: {found[paths[0]]['reason']}")
    return found


def _overlays(names: Sequence[Path]) -> list[Path]:
    """Where the overlays lie; names that differ in case alone get a number."""
    overlays: list[Path] = []
    for name in names:
        stem = f"{name.stem}_{name.suffix[1:].lower()}"
        overlay, number = name.with_name(f"{stem}.png"), 2
        while overlay in overlays:
            overlay, number = name.with_name(f"{stem}_{number}.png"), number + 1
        overlays.append(overlay)
    return overlays
