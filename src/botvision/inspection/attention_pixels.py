"""Which pixels of an image look, and the cells of an attention map under them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from botvision.tasks.predictor import Box

_OUTLINE_SIDE = 256  # steps along an outline's longer side; more are not seen


@dataclass(frozen=True)
class Pixels:
    """A set of pixels of an image.

    Attributes:
        window: Which pixels of a window belong to it, bool [h, w]; at least one.
        left: Column of the window in the image.
        top: Row of the window in the image.
    """

    window: NDArray[np.bool_]
    left: int
    top: int

    @classmethod
    def of_box(cls, box: Sequence[float], size: tuple[int, int]) -> "Pixels":
        """Return the pixels that a box touches, at least one.

        Args:
            box: x1, y1, x2, y2 in pixels.
            size: (width, height) of the image.
        """
        x1, y1 = (min(max(0, math.floor(box[axis])), size[axis] - 1) for axis in (0, 1))
        x2, y2 = (min(math.ceil(box[2 + axis]), size[axis]) for axis in (0, 1))
        return cls(np.ones((max(1, y2 - y1), max(1, x2 - x1)), np.bool_), x1, y1)

    def fractions(self, covered: Box, size: tuple[int, int]) -> Tensor:
        """Return the fraction of the pixels that lies in each cell of a map.

        Args:
            covered: The part of the image that the map covers, x1, y1, x2, y2 in pixels; all
                pixels lie in it.
            size: (H, W) of the map.

        Returns:
            float64 [H, W] of sum one.
        """
        left, top, right, bottom = covered
        counts = _counts(self.window, 0, self.top, (top, bottom), size[0])
        counts = _counts(counts, 1, self.left, (left, right), size[1])
        return torch.from_numpy(counts / counts.sum())

    def outline(self) -> list[NDArray[np.float64]]:
        """Return closed lines around the pixels: arrays [n, 2] of x, y in pixels of the image."""
        step = math.ceil(max(self.window.shape) / _OUTLINE_SIDE)
        coarse = self.window
        for axis in (0, 1):
            starts = np.arange(0, coarse.shape[axis], step)
            coarse = np.maximum.reduceat(coarse, starts, axis=axis)
        inside = np.pad(coarse, 1).astype(np.float32)  # so that lines at the edge are closed too
        rows, columns = ((np.arange(side) - 0.5) * step for side in inside.shape)
        contours = (
            Figure().subplots().contour(self.left + columns, self.top + rows, inside, levels=[0.5])
        )
        lines: list[NDArray[np.float64]] = contours.allsegs[0]
        return lines


def _counts(
    window: NDArray[np.bool_] | NDArray[np.int64],
    axis: int,
    first: int,
    covered: tuple[float, float],
    cells: int,
) -> NDArray[np.int64]:
    """Return sums over the pixels of each cell along an axis of a window."""
    begin, end = covered
    centers = np.arange(first, first + window.shape[axis]) + 0.5
    places = ((centers - begin) / (end - begin) * cells).astype(np.int64)
    taken, starts = np.unique(places, return_index=True)
    shape = [*window.shape]
    shape[axis] = cells
    counts = np.zeros(shape, np.int64)
    sums = np.add.reduceat(window, starts, axis=axis, dtype=np.int64)
    counts[(slice(None),) * axis + (taken,)] = sums
    return counts
