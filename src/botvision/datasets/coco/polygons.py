"""Masks of annotations, from polygons, run lengths or boxes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from numpy.typing import NDArray

from botvision.datasets.coco.records import run_length_fault
from botvision.errors import BotvisionError
from botvision.supervision_import import import_supervision

if TYPE_CHECKING:
    from supervision import CompactMask

Polygon = Sequence[float]

_FARTHEST = 1e9  # pixels; where an edge to there crosses the image is exact to 1e-6


def instance_mask(annotation: dict[str, Any], height: int, width: int) -> NDArray[np.uint8]:
    """Return the mask of an annotation, uint8 [height, width] of 0 and 1.

    Args:
        annotation: COCO record with polygons, compressed or uncompressed run lengths; without a
            segmentation its box is filled.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        BotvisionError: If the size or the sum of run lengths is not the image's.
    """
    mask: NDArray[np.uint8] = coco_mask.decode(run_lengths(annotation, height, width))
    return mask


def run_lengths(annotation: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Return ``instance_mask`` as COCO's compressed run lengths."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        segmentation = box_polygons(annotation["bbox"])
    if isinstance(segmentation, dict):
        if fault := run_length_fault(segmentation, height, width):
            raise BotvisionError(f"annotation {annotation['id']}: segmentation: {fault}")
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects([segmentation], height, width)[0]
        return dict(segmentation)
    near = cut_to_surroundings(segmentation, height, width)
    merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(near, height, width))
    return merged


def compact_masks(annotations: Sequence[dict[str, Any]], height: int, width: int) -> "CompactMask":
    """Return the masks of annotations in the memory of their boxes, not of the whole image.

    Args:
        annotations: COCO records, see ``instance_mask``.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    rles = [run_lengths(each, height, width) for each in annotations]
    boxes = np.array([coco_mask.toBbox(each) for each in rles]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    compact: CompactMask = import_supervision().CompactMask.from_coco_rle(
        rles, boxes, (height, width)
    )
    return compact


def box_polygons(box: Sequence[float]) -> list[list[float]]:
    """Return a box [x, y, width, height] as polygons, for annotations without a segmentation."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def cut_to_surroundings(polygons: Sequence[Polygon], height: int, width: int) -> list[Polygon]:
    """Return polygons that look the same in the image and do not reach far out of it.

    The rasterizer of COCO's tools needs memory for every point of an outline's edges, inside the
    image or not: a corner at 1e9, one slip in a file, would take the machine's memory.

    Args:
        polygons: Polygons [x1, y1, x2, y2, ...] of finite numbers, in pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Each polygon itself, if it stays within one image size around the image; else the part of
        it that does, or a polygon without area if there is none.
    """
    return [
        polygon if _is_near(polygon, height, width) else _cut(polygon, height, width)
        for polygon in polygons
    ]


def _is_near(polygon: Polygon, height: int, width: int) -> bool:
    x, y = polygon[::2], polygon[1::2]
    return -width <= min(x) and max(x) <= 2 * width and -height <= min(y) and max(y) <= 2 * height


def _cut(polygon: Polygon, height: int, width: int) -> Polygon:
    """Clip a polygon with Sutherland and Hodgman's algorithm, one side after the other."""
    values = [min(max(value, -_FARTHEST), _FARTHEST) for value in polygon]
    corners = list(zip(values[::2], values[1::2], strict=True))
    for axis, side in ((0, width), (1, height)):
        for bound, sign in ((-side, 1), (2 * side, -1)):
            corners = _cut_side(corners, axis, bound, sign)
    return [value for corner in corners for value in corner] or [0.0] * 6


def _cut_side(
    corners: list[tuple[float, float]], axis: int, bound: float, sign: int
) -> list[tuple[float, float]]:
    """Return the part beyond a bound of x (axis 0) or y (axis 1), in the direction of the sign."""
    kept: list[tuple[float, float]] = []
    for before, corner in pairwise([*corners[-1:], *corners]):
        depths = [sign * (each[axis] - bound) for each in (before, corner)]
        if (depths[0] < 0) != (depths[1] < 0):
            fraction = depths[0] / (depths[0] - depths[1])
            across = before[1 - axis] + fraction * (corner[1 - axis] - before[1 - axis])
            kept.append((bound, across) if axis == 0 else (across, bound))
        if depths[1] >= 0:
            kept.append(corner)
    return kept
