"""Boxes given by two corners where COCO has a corner and the sides."""

from dataclasses import dataclass

import numpy as np

from botvision.datasets.coco.store import Array

_FEWEST_CORNERS = 3  # fewer boxes that reach out of their images may do so by themselves


@dataclass(frozen=True)
class CornerCounts:
    """Boxes whose sides may be corners.

    Attributes:
        boxes: All of them.
        overflowing: Those that reach far out of their image.
        fitting: Those that would be inside it, if x and y of a corner stood for the sides.
    """

    boxes: int = 0
    overflowing: int = 0
    fitting: int = 0

    def __add__(self, other: "CornerCounts") -> "CornerCounts":
        return CornerCounts(
            self.boxes + other.boxes,
            self.overflowing + other.overflowing,
            self.fitting + other.fitting,
        )


def count_corners(boxes: Array, sizes: Array) -> CornerCounts:
    """Count boxes [n, 4] of images of sizes (width, height) [n, 2]."""
    near, sides = boxes[:, :2], boxes[:, 2:]
    with np.errstate(over="ignore"):
        overflowing = (near + sides > 1.02 * sizes + 1).any(axis=1)
    fitting = ((near >= -1) & (sides > near) & (sides <= sizes + 1)).all(axis=1)
    return CornerCounts(len(boxes), int(overflowing.sum()), int(fitting.sum()))


def look_like_corners(counts: CornerCounts) -> bool:
    """Whether x1 y1 x2 y2 were written where x y width height belong.

    Read as sides, corners reach out of the image as soon as the middle of a box is in its right or
    lower half, which is so for most; read as corners, honest sides hardly ever fit.
    """
    enough = counts.overflowing >= _FEWEST_CORNERS and 2 * counts.overflowing > counts.boxes
    return enough and counts.fitting >= 0.95 * counts.boxes
