"""Detections as a table, as annotations that labeling tools import, and as images of masks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from botvision.files import write_json_lists, write_table
from botvision.images.draw import mask_window
from botvision.images.own_files import MADE_BY
from botvision.supervision_import import import_supervision

if TYPE_CHECKING:
    import supervision

ANNOTATIONS_NAME = "annotations.json"

Record = dict[str, Any]
_FEWEST_POINTS = 3  # of a polygon


def write_instances(path: Path, records: Iterator[Record], names: Mapping[int, str]) -> None:
    """Write a row per instance: image, class, score, and box in pixels.

    Args:
        path: CSV to write or replace.
        records: Records of the images that were read, see ``DetectionWriter.record``.
        names: Names of the classes by id.
    """
    rows = (
        [
            record["file_name"],
            names[each["category_id"]],
            f"{each['score']:.4f}",
            *(f"{value:.2f}" for value in each["bbox"]),
        ]
        for record in records
        for each in record["annotations"]
    )
    write_table(path, ["file_name", "class", "score", "x", "y", "width", "height"], rows)


def write_annotations(
    path: Path, records: Callable[[], Iterator[Record]], categories: Sequence[Record]
) -> None:
    """Write COCO instances whose masks are polygons, as CVAT and Label Studio import them.

    An instance without a mask has its box. Holes of masks are left out, for polygons have none.

    Args:
        path: JSON to write or replace.
        records: Returns the records of the images that were read.
        categories: Categories of the detector.
    """
    images = (
        {key: record[key] for key in ("id", "file_name", "width", "height")} for record in records()
    )
    write_json_lists(
        path,
        {"info": {"made_by": MADE_BY}, "categories": list(categories)},
        {"images": images, "annotations": _instances(records())},
    )


def _instances(records: Iterator[Record]) -> Iterator[Record]:
    number = 0
    for record in records:
        for each in record["annotations"]:
            number += 1
            polygons, area = _polygons(each)
            yield {
                "id": number,
                "image_id": record["id"],
                "category_id": each["category_id"],
                "bbox": each["bbox"],
                "area": area,
                "iscrowd": 0,
                "score": each["score"],
                "segmentation": polygons,
            }


def _polygons(annotation: Record) -> tuple[list[list[float]], float]:
    """Return the outlines of a mask, or of the box if there is none, and the area."""
    x, y, width, height = annotation["bbox"]
    corners = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    if "segmentation" not in annotation:
        return corners, width * height
    mask = coco_mask.decode(annotation["segmentation"])
    found = import_supervision().mask_to_polygons(mask)
    outlines = [each.flatten().tolist() for each in found if len(each) >= _FEWEST_POINTS]
    return outlines or corners, float(mask.sum())


def instance_numbers(
    detections: "supervision.Detections", size: tuple[int, int]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return an image whose values are numbers of instances, from 1; 0 where there is none.

    Args:
        detections: Detections with compact masks, best first; the best lies on top.
        size: (width, height) of the image.

    Returns:
        [height, width], uint16 if there are more than 255 instances.
    """
    masks: Any = detections.mask
    kind = np.uint8 if len(masks) <= np.iinfo(np.uint8).max else np.uint16
    numbers = np.zeros((size[1], size[0]), kind)
    for index in reversed(range(len(masks))):
        mask, left, top = mask_window(masks, index)
        window = numbers[top : top + mask.shape[0], left : left + mask.shape[1]]
        window[mask] = index + 1
    return numbers
