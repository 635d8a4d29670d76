"""Outlines that reach far out of their image.

The rasteriser of COCO's tools needs memory for every point of an outline's edges, inside the
image or not: a corner at 1e9, one slip in a file, would take the machine's memory.
"""

from collections.abc import Sequence
from itertools import pairwise

Polygon = Sequence[float]

_FARTHEST = 1e9  # pixels; where an edge to there crosses the image is exact to 1e-6


def cut_to_surroundings(polygons: Sequence[Polygon], height: int, width: int) -> list[Polygon]:
    """Polygons [x1, y1, x2, y2, ...] that look the same in the image and do not reach far out.

    Args:
        polygons: Of finite numbers, in pixels.
        height: Of the image.
        width: Of the image.

    Returns:
        Each polygon itself, if it stays within an image's size around the image; else what of
        it is there, or one without area if nothing is.
    """
    return [
        polygon if _is_near(polygon, height, width) else _cut(polygon, height, width)
        for polygon in polygons
    ]


def _is_near(polygon: Polygon, height: int, width: int) -> bool:
    x, y = polygon[::2], polygon[1::2]
    return -width <= min(x) and max(x) <= 2 * width and -height <= min(y) and max(y) <= 2 * height


def _cut(polygon: Polygon, height: int, width: int) -> Polygon:
    """Sutherland and Hodgman's algorithm, one side of the surroundings after the other."""
    values = [min(max(value, -_FARTHEST), _FARTHEST) for value in polygon]
    corners = list(zip(values[::2], values[1::2], strict=True))
    for axis, side in ((0, width), (1, height)):
        for bound, sign in ((-side, 1), (2 * side, -1)):
            corners = _cut_side(corners, axis, bound, sign)
    return [value for corner in corners for value in corner] or [0.0] * 6


def _cut_side(
    corners: list[tuple[float, float]], axis: int, bound: float, sign: int
) -> list[tuple[float, float]]:
    """What lies beyond a bound of x (axis 0) or y (axis 1), in the direction of the sign."""
    kept: list[tuple[float, float]] = []
    for before, corner in pairwise([*corners[-1:], *corners]):
        depths = [sign * (each[axis] - bound) for each in (before, corner)]
        if (depths[0] < 0) != (depths[1] < 0):
            share = depths[0] / (depths[0] - depths[1])
            across = before[1 - axis] + share * (corner[1 - axis] - before[1 - axis])
            kept.append((bound, across) if axis == 0 else (across, bound))
        if depths[1] >= 0:
            kept.append(corner)
    return kept
