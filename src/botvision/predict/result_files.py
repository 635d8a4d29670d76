"""Predicting a picture or a folder of pictures into files."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torchvision.transforms.v2 import functional as F

from botvision.data.images import read_image
from botvision.detection.pictures import draw_results
from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.predict.predictor import Predictor


def predict_files(
    predictor: Predictor,
    paths: Sequence[Path],
    output: Path,
    *,
    score: float = 0.5,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write overlays and ``predictions.json`` for pictures.

    ``predictions.json`` holds ``images`` (id, file name, size), ``categories`` and
    ``annotations``, the records of COCO's results format. A picture that cannot be read stops
    the work before anything is written for it.

    Args:
        predictor: See ``load``.
        paths: The pictures, at least one, see ``find_images``.
        output: Folder to write to; made if need be. Below it the overlays lie as the pictures
            do below the folder they have in common.
        score: Smallest score to keep.
        progress: Called with the pictures done and their total.

    Returns:
        What was written as ``predictions.json``.

    Raises:
        BotvisionError: If a picture is missing or none, or an overlay would replace a source.
    """
    root = Path(os.path.commonpath([path.parent.resolve() for path in paths]))
    if output.resolve() == root:
        raise BotvisionError(f"--output {output}: expected another folder than the pictures'")
    first = F.pil_to_tensor(read_image(paths[0]))
    output.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "images": [],
        "categories": [vars(category) for category in predictor.categories],
        "annotations": [],
    }
    for number, path in enumerate(paths, start=1):
        image = first if number == 1 else F.pil_to_tensor(read_image(path))
        records = predictor.results(image, number, score=score)
        name = path.resolve().relative_to(root)
        content["images"].append(
            {
                "id": number,
                "file_name": name.as_posix(),
                "width": image.shape[2],
                "height": image.shape[1],
            }
        )
        content["annotations"].extend(records)
        overlay = output / name.with_name(f"{name.stem}_{name.suffix[1:].lower()}.png")
        overlay.parent.mkdir(parents=True, exist_ok=True)
        with replacing(overlay) as temporary:
            draw_results(image, records, predictor.categories).save(temporary)
        progress(number, len(paths))
    with replacing(output / "predictions.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return content
