"""Predicting the classes of an image or a folder of images into files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from botvision.errors import BotvisionError
from botvision.files import replacing, write_json
from botvision.images.decode import read_image
from botvision.images.draw import mosaic
from botvision.predict.class_predictor import ClassPredictor
from botvision.predict.result_files import file_names
from botvision.tasks.classification.draw import BLACK, captioned
from botvision.tasks.classification.metrics import BEST_CLASSES

_AT_ONCE = 32
_ON_THE_SHEET = 25
_LINES = 3  # under an image of the sheet


def predict_class_files(
    predictor: ClassPredictor,
    paths: Sequence[Path],
    output: Path,
    *,
    tta: bool = False,
    skip_bad: bool = False,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write ``predictions.json`` and, of the first 25 images, ``predictions.jpg``.

    ``predictions.json`` holds ``classes``, ``images`` (file name below the folder that the
    photos have in common, and the five most probable classes with their probabilities) and
    ``skipped`` (file name and reason). Nothing is written before all photos are read.

    Args:
        predictor: See ``load``.
        paths: The photos, at least one, see ``find_images``.
        output: Folder to write to; made if need be.
        tta: Average over each image and its mirror image.
        skip_bad: Go on without photos that cannot be read.
        progress: Called with the photos done and their total.

    Returns:
        What was written as ``predictions.json``.

    Raises:
        BotvisionError: If an image cannot be read, or with ``skip_bad`` none can.
    """
    if output.exists() and not output.is_dir():
        raise BotvisionError(f"--output {output}: expected a folder, got a file")
    images: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    cells: list[Image.Image] = []
    named = [*zip(paths, file_names(paths), strict=True)]
    for start in range(0, len(named), _AT_ONCE):
        batch = named[start : start + _AT_ONCE]
        photos, names = [], []
        for path, name in batch:
            try:
                photos.append(read_image(path))
                names.append(name.as_posix())
            except BotvisionError as error:
                if not skip_bad:
                    raise
                skipped.append({"file_name": name.as_posix(), "reason": str(error)})
        best = predictor.probabilities(photos, tta=tta).topk(
            min(BEST_CLASSES, len(predictor.classes))
        )
        for image, file_name, values, places in zip(
            photos, names, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            predicted = [
                {"class": predictor.classes[place], "probability": value}
                for place, value in zip(places, values, strict=True)
            ]
            images.append({"file_name": file_name, "predicted": predicted})
            if len(cells) < _ON_THE_SHEET:
                cells.append(_cell(predictor, image, predicted))
        progress(start + len(batch), len(paths))
    if not images:
        raise BotvisionError(f"none of the images can be read: {skipped[0]['reason']}")
    content = {"classes": list(predictor.classes), "images": images, "skipped": skipped}
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / "predictions.jpg") as temporary:
        mosaic(cells).save(temporary)
    write_json(output / "predictions.json", content)
    return content


def _cell(
    predictor: ClassPredictor, image: Image.Image, predicted: list[dict[str, Any]]
) -> Image.Image:
    """An image as the classifier sees it, over its most probable classes."""
    lines = [(f"{each['probability']:.2f} {each['class']}", BLACK) for each in predicted[:_LINES]]
    preparation = predictor.preparation
    return captioned(
        predictor.transform(image),
        lines,
        mean=torch.tensor(preparation.mean),
        std=torch.tensor(preparation.std),
    )
