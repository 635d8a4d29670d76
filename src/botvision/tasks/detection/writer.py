"""Detections drawn on their images, and written as COCO results."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from botvision.datasets.coco.store import Category
from botvision.errors import BotvisionError, nearest
from botvision.files import quoted, replacing, write_json_lists
from botvision.images.draw import LARGEST_CELL, draw_instances, mosaic
from botvision.images.own_files import (
    MADE_BY,
    OUTPUT_NAME,
    SHEET_NAME,
    TABLE_NAME,
    overlay_names,
    save_drawn,
)
from botvision.tasks.detection.exports import (
    ANNOTATIONS_NAME,
    instance_numbers,
    write_annotations,
    write_instances,
)
from botvision.tasks.detection.metrics import coco_results
from botvision.tasks.detection.predictor import DetectionPredictor
from botvision.tasks.predictor import counted

if TYPE_CHECKING:
    import supervision

SAVED = ("jpg", "png", "crops", "masks", "csv", "coco", "none")
"""What can be saved besides ``predictions.json``."""

_DEFAULT = ("jpg",)
_ON_THE_SHEET = 25
_QUALITY = 90
_CROPS, _MASKS = "crops", "masks"


class DetectionWriter:
    """Writes detections of images; see ``ResultWriter`` and ``Task.writer``.

    ``predictions.json`` holds ``made_by``, ``categories``, ``images`` (id, file name, size),
    ``annotations``, records in COCO's results format, and ``skipped`` (file name and reason).
    Images in which the model's limit was reached, so that objects may be missing, have it as
    ``max_detections``.

    ``save`` may name:

    - "jpg" or "png": overlays, which lie below the output folder as the images do below the folder
      they have in common, and ``predictions.jpg``, a sheet of the first 25; JPEG if none is named;
    - "crops": each instance's box as ``crops/<class>/<image>_<number>.jpg``;
    - "masks": ``masks/<image>.png``, with the number of the instance, from 1, as the value of a
      pixel; the best instance on top;
    - "csv": ``predictions.csv``, a row per instance;
    - "coco": ``annotations.json``, COCO instances with polygons, which labeling tools import;
    - "none": none of these.
    """

    def __init__(
        self,
        predictor: DetectionPredictor,
        output: Path,
        names: Sequence[Path],
        save: Sequence[str] | None = None,
    ) -> None:
        self._save = _checked(_DEFAULT if save is None else save)
        self._output = output
        self._suffix = ".png" if "png" in self._save else ".jpg" if "jpg" in self._save else None
        self._places = dict(zip(names, overlay_names(names, self._suffix or ""), strict=True))
        self._ids = {name: number for number, name in enumerate(names, start=1)}
        classes = predictor.description.classes
        self._categories = [Category(each.id, each.name) for each in classes]
        # Results carry the ids of the data set; files and colors go by the index of the class.
        self._indices = {each.id: index for index, each in enumerate(classes)}
        self._names = predictor.classes
        self._limit = predictor.max_detections
        self._images = self._cut = 0  # all images, and those in which the limit was reached
        self._counts: Counter[str] = Counter()
        self.files = [output / OUTPUT_NAME]
        if self._suffix:
            self.files += [output / place for place in (*self._places.values(), Path(SHEET_NAME))]
        if "masks" in self._save:
            self.files += [self._mask_place(name) for name in names]
        for kind, file in (("csv", TABLE_NAME), ("coco", ANNOTATIONS_NAME)):
            if kind in self._save:
                self.files.append(output / file)

    def draw(self, name: Path, image: Image.Image, result: "supervision.Detections") -> None:
        """Write the overlay, crops and masks of an image; see ``ResultWriter.draw``."""
        if self._suffix:
            overlay = self._output / self._places[name]
            overlay.parent.mkdir(parents=True, exist_ok=True)
            drawn = draw_detections(F.pil_to_tensor(image), self._indexed(result), self._names)
            with replacing(overlay, flushed=False) as temporary:
                save_drawn(drawn, temporary, quality=_QUALITY)
        if "masks" in self._save and result.mask is not None:
            place = self._mask_place(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place, flushed=False) as temporary:
                save_drawn(Image.fromarray(instance_numbers(result, image.size)), temporary)
        if "crops" in self._save:
            self._write_crops(name, image, result)

    def record(
        self, name: Path, size: tuple[int, int], result: "supervision.Detections"
    ) -> dict[str, Any]:
        """Return an image's file name, size and annotations; see ``ResultWriter.record``."""
        number = self._ids[name]
        record: dict[str, Any] = {"id": number, "file_name": name.as_posix()}
        record |= {"width": size[0], "height": size[1]}
        if len(result) >= self._limit:
            record["max_detections"] = self._limit
        found = coco_results(self._indexed(result), number, self._categories)
        return {**record, "annotations": found}

    def finish(
        self,
        records: Callable[[], Iterator[dict[str, Any]]],
        skipped: Sequence[dict[str, Any]],
        read: Callable[[str], Image.Image],  # noqa: ARG002 - the overlays are there
    ) -> None:
        """Write ``predictions.json``, and the sheet and tables asked for."""
        names = {each.id: each.name for each in self._categories}
        for record in records():
            self._images += 1
            self._cut += "max_detections" in record
            self._counts.update(names[each["category_id"]] for each in record["annotations"])
        self._output.mkdir(parents=True, exist_ok=True)
        categories = [vars(category) for category in self._categories]
        if self._suffix:
            self._write_sheet(records())
        if "csv" in self._save:
            write_instances(self._output / TABLE_NAME, records(), names)
        if "coco" in self._save:
            write_annotations(self._output / ANNOTATIONS_NAME, records, categories)
        write_json_lists(
            self._output / OUTPUT_NAME,
            {"made_by": MADE_BY, "categories": categories},
            {
                "images": (
                    {key: value for key, value in record.items() if key != "annotations"}
                    for record in records()
                ),
                "annotations": (each for record in records() for each in record["annotations"]),
                "skipped": skipped,
            },
        )

    def summary(self) -> list[str]:
        """Return the number of instances by class, and where everything is."""
        by_class = f": {counted(self._counts)}" if self._counts else ""
        lines = [f"{self._counts.total():,} instances in {self._images:,} images{by_class}"]
        if self._cut:
            lines.append(
                f"{self._cut} of the images have {self._limit} instances, the most that this model "
                "gives: there may be more; max_detections raises it"
            )
        if self._suffix:
            lines.append(f"the first images on a sheet: {quoted(self._output / SHEET_NAME)}")
        what = "overlays" if self._suffix else "results"
        return [*lines, f"{what} are in {quoted(self._output)}"]

    def _indexed(self, result: "supervision.Detections") -> "supervision.Detections":
        assert result.class_id is not None
        indices = [self._indices[each] for each in result.class_id.tolist()]
        return replace(result, class_id=np.array(indices, dtype=np.int64))

    def _mask_place(self, name: Path) -> Path:
        return self._output / _MASKS / self._places[name].with_suffix(".png")

    def _write_crops(
        self, name: Path, image: Image.Image, result: "supervision.Detections"
    ) -> None:
        indices = self._indexed(result).class_id
        assert indices is not None
        for number, (box, index) in enumerate(zip(result.xyxy, indices.tolist(), strict=True)):
            x1, y1, x2, y2 = box.tolist()
            left, top = int(x1), int(y1)
            right, bottom = max(left + 1, round(x2)), max(top + 1, round(y2))
            stem = self._places[name].with_suffix("")
            place = self._output / _CROPS / _folder_name(self._names[index])
            place = place / f"{'_'.join(stem.parts)}_{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place, flushed=False) as temporary:
                save_drawn(image.crop((left, top, right, bottom)), temporary, quality=_QUALITY)

    def _write_sheet(self, records: Iterator[dict[str, Any]]) -> None:
        cells = []
        for record in islice(records, _ON_THE_SHEET):
            with Image.open(self._output / self._places[Path(record["file_name"])]) as overlay:
                overlay.draft("RGB", (LARGEST_CELL, LARGEST_CELL))
                cell = overlay.convert("RGB")
            cell.thumbnail((LARGEST_CELL, LARGEST_CELL))
            cells.append(cell)
        with replacing(self._output / SHEET_NAME) as temporary:
            save_drawn(mosaic(cells), temporary)


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


def _checked(save: Sequence[str]) -> frozenset[str]:
    for each in save:
        if each not in SAVED:
            raise BotvisionError(
                f"save: expected some of {', '.join(SAVED)}, got {each!r}{nearest(each, SAVED)}"
            )
    chosen = frozenset(save)
    if ("none" in chosen and len(chosen) > 1) or {"jpg", "png"} <= chosen:
        raise BotvisionError(
            f"save: expected none alone, and jpg or png, got {' and '.join(sorted(chosen))}"
        )
    return chosen


def _folder_name(name: str) -> str:
    """Return the name of a class as that of a folder, on any system."""
    kept = "".join(each if each.isalnum() or each in " -_" else "_" for each in name).strip()
    return kept or "_"
