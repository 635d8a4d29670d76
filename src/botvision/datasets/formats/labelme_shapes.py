"""Shapes of labelme and its kin (X-AnyLabeling): polygons and masks of instances."""

import base64
import binascii
import io
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from botvision.datasets.coco.records import is_finite
from botvision.datasets.coco.writing import box_annotation, mask_annotation, polygon_area
from botvision.datasets.formats.labeled_sets import LabeledSet, polygon_corners
from botvision.errors import BotvisionError
from botvision.images.decode import decode_image

# labelme's own converters give these no class.
RESERVED = ("__ignore__", "_background_", "__background__")

_POLYGONS = ("polygon", "ai_polygon", "rotation", "oriented_rectangle", "quadrilateral")
_CIRCLE_POINTS = 64  # area within 0.2%; a multiple of 4, so that the box is the circle's


@dataclass(frozen=True)
class Shape:
    """Part of an instance: a polygon, or a mask at a place.

    Attributes:
        label: Class.
        group: Key of the instance in its file.
        polygon: Polygon [x1, y1, x2, y2, ...].
        mask: Mask [H, W] in place of the polygon, whose left top corner that begins with.
        upright: Whether the polygon is an upright rectangle.
        difficult: Whether the shape was marked as difficult.
    """

    label: str
    group: Any
    polygon: list[float]
    mask: NDArray[np.bool_] | None = None
    upright: bool = False
    difficult: bool = False


def read_shape(where: str, number: int, shape: Any, result: LabeledSet) -> Shape | None:
    """Return a shape; None, counted, if it is not a region or has a reserved label.

    Args:
        where: File and number of the shape, for messages.
        number: Number of the shape, its group if it has none.
        shape: Record of the file.
        result: Data set that counts what is left out.

    Raises:
        BotvisionError: If the shape is faulty.
    """
    if not isinstance(shape, dict):
        raise BotvisionError(f"{where}: expected an object, got {type(shape).__name__}")
    label, kind, group = (shape.get(key) for key in ("label", "shape_type", "group_id"))
    label = label.strip() if isinstance(label, str) else label
    if not isinstance(kind, str | None) or kind not in (
        *(*_POLYGONS, "rectangle", "circle", "mask", "ai_mask"),
        *(None, ""),  # files before 2018 know polygons only
    ):
        result.skipped[f"shape of type {kind!r:.20}"] += 1
        return None
    if label in RESERVED:
        result.skipped[f"label {label}"] += 1
        return None
    if not isinstance(label, str) or not label:
        raise BotvisionError(f"{where}: label: expected a class, got {label!r:.60}")
    if not isinstance(group, int | float | str | None):
        raise BotvisionError(f"{where}: group_id: expected a number, got {group!r:.60}")
    points = _points(where, shape.get("points"))
    key = number if group is None else (label, group)
    # "flags" hold it where a file was made with such a check box.
    flags = shape.get("flags")
    difficult = True in (
        shape.get("difficult"),
        flags.get("difficult") if isinstance(flags, dict) else None,
    )
    upright, mask = kind == "rectangle", None
    if upright:
        if len(points) < 4:
            raise BotvisionError(f"{where}: points: expected 2 corners, got {len(points) // 2}")
        left, top, right, bottom = polygon_corners([points])
        points = [left, top, right, top, right, bottom, left, bottom]
    elif kind == "circle":
        points = _circle(where, points)
    elif kind in ("mask", "ai_mask"):
        mask = _mask(where, shape.get("mask"))
        if len(points) < 2:
            raise BotvisionError(f"{where}: points: expected 2 corners of the mask, got none")
    elif len(points) < 6:
        result.skipped["polygon of fewer than 3 points"] += 1
        return None
    return Shape(label, key, points, mask, upright, difficult)


def instance(
    shapes: list[Shape], result: LabeledSet, size: tuple[int, int]
) -> dict[str, Any] | None:
    """Return the COCO record of an instance's shapes; None, counted, if it is outside the image.

    Args:
        shapes: Shapes of one label and group.
        result: Data set that counts what is left out or clipped.
        size: Width and height of the image.
    """
    crowd = int(any(shape.difficult for shape in shapes))
    if any(shape.mask is not None for shape in shapes):
        drawn = _drawn(shapes, size)
        if not drawn.any():
            result.skipped["mask without a pixel in the image"] += 1
            return None
        return mask_annotation(drawn, 0) | {"iscrowd": crowd}
    polygons = [shape.polygon for shape in shapes]
    box = result.box(polygon_corners(polygons), size)
    if box is None:
        return None
    if len(shapes) == 1 and shapes[0].upright:
        return box_annotation(box, 0, iscrowd=crowd)
    return box_annotation(box, 0, iscrowd=crowd, area=polygon_area(polygons), segmentation=polygons)


def _circle(where: str, points: list[float]) -> list[float]:
    """Return the polygon of a circle, given by its center and a point on it."""
    if len(points) != 4:
        raise BotvisionError(
            f"{where}: points: expected the circle's center and a point on it, got "
            f"{len(points) // 2} points"
        )
    x, y, edge_x, edge_y = points
    radius = math.hypot(edge_x - x, edge_y - y)
    angles = [2 * math.pi * number / _CIRCLE_POINTS for number in range(_CIRCLE_POINTS)]
    return [
        round(value, 6)  # the box of a radius of 10 is 20 wide
        for angle in angles
        for value in (x + radius * math.cos(angle), y + radius * math.sin(angle))
    ]


def _mask(where: str, text: Any) -> NDArray[np.bool_]:
    """Return the mask of a PNG file in base64."""
    if not isinstance(text, str):
        raise BotvisionError(f"{where}: mask: expected a PNG file in base64, got {text!r:.60}")
    image = decode_image(io.BytesIO(decode_base64(where, "mask", text)), f"{where}: mask")
    return np.asarray(image).max(axis=2) > 0


def decode_base64(where: str, key: str, text: str) -> bytes:
    """Return the bytes of a text in base64.

    Raises:
        BotvisionError: If it is none.
    """
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)  # after a data URL's head
    except (binascii.Error, ValueError) as error:
        raise BotvisionError(f"{where}: {key}: expected base64, got {text!r:.40}") from error


def _drawn(shapes: list[Shape], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask [H, W] of all shapes together."""
    width, height = size
    drawn = np.zeros((height, width), np.bool_)
    for shape in shapes:
        if shape.mask is None:
            drawn |= coco_mask.decode(
                coco_mask.merge(coco_mask.frPyObjects([shape.polygon], height, width))
            ).astype(np.bool_)
            continue
        left, top = (math.floor(value) for value in shape.polygon[:2])
        cut = shape.mask[max(0, -top) :, max(0, -left) :]
        target = drawn[max(0, top) :, max(0, left) :]
        rows, columns = min(len(cut), len(target)), min(cut.shape[1], target.shape[1])
        target[:rows, :columns] |= cut[:rows, :columns]
    return drawn


def _points(where: str, points: Any) -> list[float]:
    if isinstance(points, list) and all(isinstance(p, list) and len(p) == 2 for p in points):
        values = list(itertools.chain.from_iterable(points))
        if all(map(is_finite, values)):
            return [float(value) for value in values]
    raise BotvisionError(f"{where}: points: expected pairs of finite numbers, got {points!r:.60}")
