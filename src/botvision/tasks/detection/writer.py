"""Detections drawn on their images, and written as COCO results."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from botvision.datasets.coco.store import Category
from botvision.files import quoted, replacing, write_json
from botvision.images.draw import draw_instances
from botvision.images.own_files import MADE_BY, OUTPUT_NAME, overlay_names, save_drawn
from botvision.tasks.detection.metrics import coco_results
from botvision.tasks.detection.predictor import DetectionPredictor

if TYPE_CHECKING:
    import supervision


class DetectionWriter:
    """Writes an overlay of each image and ``predictions.json``; see ``ResultWriter``.

    ``predictions.json`` holds ``made_by``, ``images`` (id, file name, size), ``categories``,
    ``annotations``, records in COCO's results format, and ``skipped`` (file name and reason).
    Images in which the model's limit was reached, so that objects may be missing, have it as
    ``max_detections``.
    Overlays lie below the output folder as the images do below the folder they have in common.

    Args:
        predictor: Predictor of the results.
        output: Folder to write to; made when the first result is written.
        names: Paths of all images below the folder they have in common.

    Attributes:
        files: Paths that will be written.
    """

    def __init__(self, predictor: DetectionPredictor, output: Path, names: Sequence[Path]) -> None:
        self._output = output
        self._places = dict(zip(names, overlay_names(names), strict=True))
        self._ids = {name: number for number, name in enumerate(names, start=1)}
        classes = predictor.description.classes
        self._categories = [Category(each.id, each.name) for each in classes]
        # Results carry the ids of the data set; files and colors go by the index of the class.
        self._indices = {each.id: index for index, each in enumerate(classes)}
        self._names = predictor.classes
        self._limit = predictor.max_detections
        self._cut = 0  # images in which the limit was reached
        self._content: dict[str, Any] = {
            "made_by": MADE_BY,
            "images": [],
            "categories": [vars(category) for category in self._categories],
            "annotations": [],
            "skipped": [],
        }
        self.files = [
            output / OUTPUT_NAME,
            *(output / place for place in self._places.values()),
        ]

    def add(self, name: Path, image: Image.Image, result: "supervision.Detections") -> None:
        """Write the overlay of an image; see ``ResultWriter.add``."""
        number = self._ids[name]
        record: dict[str, Any] = {"id": number, "file_name": name.as_posix()}
        record |= {"width": image.width, "height": image.height}
        assert result.class_id is not None
        if len(result.class_id) >= self._limit:
            record["max_detections"] = self._limit
            self._cut += 1
        self._content["images"].append(record)
        indices = [self._indices[each] for each in result.class_id.tolist()]
        indexed = replace(result, class_id=np.array(indices, dtype=np.int64))
        self._content["annotations"].extend(coco_results(indexed, number, self._categories))
        overlay = self._output / self._places[name]
        overlay.parent.mkdir(parents=True, exist_ok=True)
        with replacing(overlay) as temporary:
            save_drawn(draw_detections(F.pil_to_tensor(image), indexed, self._names), temporary)

    def finish(self, skipped: list[dict[str, str]]) -> dict[str, Any]:
        """Write ``predictions.json`` and return its content."""
        self._content["skipped"] = skipped
        self._output.mkdir(parents=True, exist_ok=True)
        write_json(self._output / OUTPUT_NAME, self._content)
        return self._content

    def summary(self) -> list[str]:
        """Return the number of instances and where the overlays are."""
        found, images = len(self._content["annotations"]), len(self._content["images"])
        lines = [f"{found} instances in {images} images; overlays are in {quoted(self._output)}"]
        if self._cut:
            lines.append(
                f"{self._cut} of the images have {self._limit} instances, the most that this model "
                "gives: there may be more; max_detections raises it"
            )
        return lines


def draw_detections(
    image: Tensor,
    detections: "supervision.Detections",
    names: Sequence[str],
    *,
    max_side: int | None = None,
) -> Image.Image:
    """Draw one image's detections.

    Args:
        image: [3, H, W], uint8 or float in 0..1.
        detections: Detections, see ``detect``.
        names: Names of the classes, in label order.
        max_side: Longest side drawn, see ``draw_instances``.

    Returns:
        An RGB image.
    """
    class_ids, confidence = detections.class_id, detections.confidence
    assert class_ids is not None
    assert confidence is not None
    captions = [
        f"{names[class_id]} {score:.2f}"
        for class_id, score in zip(class_ids.tolist(), confidence.tolist(), strict=True)
    ]
    labels, masks = (class_ids + 1).tolist(), detections.mask
    return draw_instances(image, detections.xyxy, labels, captions, masks, max_side=max_side)
