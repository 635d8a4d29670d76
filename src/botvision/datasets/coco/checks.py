"""Checking annotation records one by one, with a message that names what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask

from botvision.datasets.check.findings import (
    Finding,
    Report,
    about_annotation,
    corners_for_sides,
    cut_off,
    not_drawable,
    raise_errors,
    shown,
    unknown_image,
    without_area,
)
from botvision.datasets.coco.corners import count_corners, look_like_corners
from botvision.datasets.coco.packing import Image, Instance, Packer, RunLengths, Tally
from botvision.datasets.coco.records import (
    FIELDS,
    is_a,
    is_finite,
    is_plain,
    known_ids,
    read_json,
    record_list,
    sound_records,
)
from botvision.datasets.coco.store import AnnotationArrays, Record

UNKNOWN_IMAGE = "image_id without an image"
NO_AREA = "box without area inside the image"
NOT_DRAWABLE = "polygon of fewer than 3 points or odd length"
ROUNDING = 0.1
"""Pixels that a box may reach out of its image without being called clipped."""


def check_annotations(path: Path, report: Report = raise_errors) -> AnnotationArrays:
    """Read a COCO instances file with Python's own parser, and check every record by itself.

    This says what is wrong with a file and takes forms that are rare, such as ids that are text;
    ``annotation_reading`` is the fast way for the others.

    Args:
        path: The file.
        report: Given every finding; unless it raises, the arrays hold what is sound.

    Raises:
        BotvisionError: Naming the file, the record's id, the field and the value.
    """
    content = read_json(path, report)
    lists = {key: record_list(path, content, key, report) for key in FIELDS if content is not None}
    if len(lists) < len(FIELDS) or any(records is None for records in lists.values()):
        return Packer([], []).arrays(Tally())
    checked = _Checked(path, report, {key: records or [] for key, records in lists.items()})
    packer = Packer(
        [
            Image(*(each[name] for name in ("id", "file_name", "width", "height")))
            for each in checked.images
        ],
        checked.categories,
    )
    packer.add(
        [_instance(annotation) for annotation, _ in checked.usable],
        image_places=np.array(
            [checked.image_places[each["image_id"]] for each, _ in checked.usable], np.int64
        ),
        category_places=np.array(
            [checked.category_places[each["category_id"]] for each, _ in checked.usable], np.int64
        ),
        boxes=np.array([box for _, box in checked.usable], np.float64).reshape(-1, 4),
    )
    return packer.arrays(checked.tally)


class _Checked:
    """The sound records of a file.

    Args:
        path: The file.
        report: Given every finding.
        content: The file's lists.

    Attributes:
        images: Records in file order.
        categories: Records by id.
        usable: Annotations with their clipped boxes.
        tally: Of the other annotations.
    """

    def __init__(self, path: Path, report: Report, content: dict[str, list[Any]]) -> None:
        self._path, self._report = path, report
        self.images = sound_records(path, content, "images", report)
        self.categories = sound_records(path, content, "categories", report)
        self.categories.sort(key=lambda record: record["id"])
        self.image_places = {image["id"]: place for place, image in enumerate(self.images)}
        self.category_places = {each["id"]: place for place, each in enumerate(self.categories)}
        # What refers to a record that is refused is not wrong itself.
        self._all_images = known_ids(content["images"])
        self._all_categories = known_ids(content["categories"])
        annotations = sound_records(path, content, "annotations", report)
        self.tally = Tally(
            records=len(content["annotations"]),
            refused=len(content["annotations"]) - len(annotations),
        )
        self._boxes: list[list[float]] = []
        self._sizes: list[tuple[float, float]] = []
        self.usable = [
            (annotation, box)
            for annotation in annotations
            if (box := self._usable(annotation)) is not None
        ]
        sizes = np.array(self._sizes, np.float64).reshape(-1, 2)
        counts = count_corners(np.array(self._boxes, np.float64).reshape(-1, 4), sizes)
        if look_like_corners(counts):
            report(corners_for_sides(path, counts.overflowing, counts.boxes))

    def _usable(self, annotation: Record) -> list[float] | None:
        """The clipped box of an annotation that can be used; others are reported and counted."""
        outcome = self._box_or_fault(annotation)
        if isinstance(outcome, list):
            return outcome
        reason, finding = outcome
        if reason:
            self.tally.skipped[reason] += 1
        else:
            self.tally.refused += 1
        if finding is not None:
            self._report(finding)
        return None

    def _box_or_fault(self, annotation: Record) -> list[float] | tuple[str, Finding | None]:
        """The clipped box; or the reason for leaving it out, empty for an error, and the finding.

        There is no finding where a record that it refers to has one.
        """
        number, category = annotation["id"], annotation["category_id"]
        if not is_a(category, int) or category not in self.category_places:
            return "", self._category_fault(number, category)
        image_id = annotation["image_id"]
        place = self.image_places.get(image_id)
        if place is None:
            if image_id in self._all_images:
                return "", None
            return UNKNOWN_IMAGE, unknown_image(self._path, number, image_id)
        size = self.images[place]["width"], self.images[place]["height"]
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
            expected = "4 finite numbers [x, y, width, height]"
            return "", about_annotation(
                "error", self._path, number, "bbox", expected=expected, value=box
            )
        box = list(map(float, box))
        self._boxes.append(box)
        self._sizes.append(size)
        x, y, width, height = box
        left, top = max(x, 0.0), max(y, 0.0)
        right, bottom = min(x + width, float(size[0])), min(y + height, float(size[1]))
        if width <= 0 or height <= 0 or right <= left or bottom <= top:
            return NO_AREA, without_area(self._path, number, annotation["bbox"], size)
        segmentation = annotation.get("segmentation")
        if fault := _segmentation_fault(segmentation, size):
            return "", about_annotation(
                "error",
                self._path,
                number,
                "segmentation",
                expected="polygons of finite numbers or run lengths of the image's size",
                value=segmentation,
                said=fault,
            )
        if not _drawable(segmentation):
            return NOT_DRAWABLE, not_drawable(self._path, number, segmentation)
        if max(left - x, top - y, x + width - right, y + height - bottom) > ROUNDING:
            self.tally.clipped += 1
            self._report(cut_off(self._path, number, annotation["bbox"], size))
        return [left, top, right - left, bottom - top]

    def _category_fault(self, number: int | str, category: Any) -> Finding | None:
        if is_plain(category) and category in self._all_categories:
            return None
        return about_annotation(
            "error",
            self._path,
            number,
            "category_id",
            expected="one of the file's categories",
            value=category,
        )


def run_length_fault(rle: Record, height: float, width: float) -> str:
    """What is wrong with run lengths, or nothing.

    Args:
        rle: COCO's record with size and counts.
        height: Of the image, pixels.
        width: Of the image, pixels.
    """
    expected = f"expected run lengths of {height} x {width}"
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width] or not all(isinstance(side, int) for side in size):
        return f"{expected}, got size {size!r}"
    if isinstance(counts, list):
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            return f"{expected}, got counts that are no whole numbers from 0"
        if sum(counts) != height * width:
            return f"{expected}, got counts for {sum(counts)} pixels"
        return ""
    if not isinstance(counts, str):
        return f"{expected}, got counts of type {type(counts).__name__}"
    try:
        coco_mask.decode(rle)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        return f"{expected}, got counts that cannot be decoded ({error})"
    return ""


def _segmentation_fault(segmentation: Any, size: tuple[float, float]) -> str:
    """What is wrong with a segmentation that is neither polygons nor run lengths, or nothing."""
    if not segmentation:
        return ""
    if isinstance(segmentation, dict):
        return run_length_fault(segmentation, size[1], size[0])
    if isinstance(segmentation, list) and all(
        isinstance(polygon, list) and all(map(is_finite, polygon)) for polygon in segmentation
    ):
        return ""
    return f"expected polygons of finite numbers or run lengths, got {shown(segmentation)}"


def _drawable(segmentation: Any) -> bool:
    """Whether polygons can have an area."""
    polygons = segmentation if isinstance(segmentation, list) else []
    return all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)


def _instance(annotation: Record) -> Instance:
    """A record that was found sound, without what nobody uses."""
    segmentation, area = annotation.get("segmentation") or None, annotation.get("area")
    if isinstance(segmentation, dict):
        segmentation = RunLengths(segmentation["size"], segmentation["counts"])
    return Instance(
        id=annotation["id"],
        image_id=annotation["image_id"],
        category_id=annotation["category_id"],
        bbox=annotation["bbox"],
        segmentation=segmentation,
        iscrowd=int(bool(annotation.get("iscrowd"))),
        area=area if is_finite(area) else None,
    )
