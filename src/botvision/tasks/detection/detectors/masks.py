"""Mask pasting: predicted masks put back into the image, each in the window of its box."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from botvision.supervision_import import import_supervision

if TYPE_CHECKING:
    from supervision import CompactMask

_CHUNK = 2**14  # pixels sampled at a time: their grid stays in the cache, on one core
_Window = tuple[int, int, int, int]


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Paste masks of boxes into the image, the inverse of how their targets are cut out.

    torchvision cuts mask targets with ``roi_align(aligned=False)``, which samples pixel index j at
    coordinate j, but pastes predictions into boxes rounded to whole pixels and one pixel larger.
    On small objects this alone spoils perfect masks (see the tests). Here masks are sampled at the
    coordinates at which the targets were taken.

    Args:
        masks: Probabilities inside the boxes, float [n, 1, M, M].
        boxes: Float [n, 4], x1 y1 x2 y2 in pixels.
        size: (H, W) of the image.

    Returns:
        Float [n, 1, H, W], zero more than half a cell of the M x M grid outside the boxes.
    """
    pasted = masks.new_zeros(len(masks), 1, *size)
    for index, (mask, box) in enumerate(zip(masks, boxes.to(masks.dtype), strict=True)):
        window = _window(box, size, 0.5 / masks.shape[-1])
        left, top, _, bottom = window
        for start, values in _sampled(mask, box, window):
            columns = slice(left + start, left + start + len(values))
            pasted[index, 0, top:bottom, columns] = values.T
    return pasted


def compact_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> "CompactMask":
    """Return where ``paste_masks`` gives at least 0.5, run-length encoded.

    The memory needed is that of one box's binary mask.

    Args:
        masks: Probabilities inside the boxes, float [n, 1, M, M].
        boxes: Float [n, 4], x1 y1 x2 y2 in pixels.
        size: (H, W) of the image.

    Returns:
        Binary masks [n, H, W] on the CPU.
    """
    compact = import_supervision().CompactMask
    found = [compact.from_dense(np.zeros((0, *size), bool), np.zeros((0, 4)), size)]
    for mask, box in zip(masks, boxes.to(masks.dtype), strict=True):
        window = _window(box, size, 0.0)  # further outside probabilities stay below 0.5
        left, top, right, bottom = window
        width, height = right - left, bottom - top
        # Run lengths go down the columns: [width, height] needs no copy for them.
        binary = torch.empty(width, height, dtype=torch.bool, device=masks.device)
        for start, values in _sampled(mask, box, window):
            torch.ge(values, 0.5, out=binary[start : start + len(values)])
        whole = np.array([[0, 0, width - 1, height - 1]])
        crop = compact.from_dense(binary.cpu().numpy().T[None], whole, (height, width))
        found.append(crop.with_offset(left, top, size))
    merged: CompactMask = compact.merge(found)
    return merged


def _window(box: Tensor, size: tuple[int, int], fringe: float) -> _Window:
    """Return the pixels of a box [4], at least one: left, top, right and bottom (exclusive).

    The margin on each side is a fraction ``fringe`` of the box's.
    """
    corners: list[float] = box.tolist()
    ranges = []
    for first, last, length in zip(corners[:2], corners[2:], reversed(size), strict=True):
        last = max(first, last)
        margin = 1 + (last - first) * fringe  # one more for rounding
        start = min(max(0, math.floor(first - margin)), length - 1)
        ranges.append((start, max(start + 1, min(length, math.ceil(last + margin) + 1))))
    (left, right), (top, bottom) = ranges
    return left, top, right, bottom


def _sampled(mask: Tensor, box: Tensor, window: _Window) -> Iterator[tuple[int, Tensor]]:
    """Sample a mask [1, M, M] at the pixels of a window, in chunks of whole columns.

    Yields the index of the first column in the window, and values [columns, height].
    """
    axes = []
    for axis in range(2):
        first, last = box[axis], box[axis + 2]
        pixels = torch.arange(window[axis], window[axis + 2], dtype=box.dtype, device=box.device)
        axes.append((pixels - first) / (last - first).clamp(min=1e-6) * 2 - 1)
    x, y = axes
    step = max(1, _CHUNK // len(y))
    for start in range(0, len(x), step):
        columns = x[start : start + step]
        grid = columns.new_empty(1, len(columns), len(y), 2)
        grid[..., 0] = columns[:, None]
        grid[..., 1] = y
        yield start, F.grid_sample(mask[None], grid, align_corners=False)[0, 0]
