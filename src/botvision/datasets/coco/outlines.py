"""Polygons of annotations as they come: other ways of writing them, and whether they fit the boxes.

Training takes its boxes from the outlines and evaluation takes those of the file, so outlines and
boxes that differ make every metric wrong.
"""

import ast
import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from faster_coco_eval.core import mask as coco_mask

from botvision.datasets.coco.store import Array

_MSGPACK = msgspec.msgpack.Encoder()
_NUMBER = np.dtype([("type", "u1"), ("value", ">f8")])  # of msgpack
_FITS = 0.5  # IoU of a box and its outline's
_NEAR = 2.0  # pixels by which the boxes of small objects differ by themselves
_EXPLAINED, _MOST = 0.8, 0.9  # IoU, and fraction of the boxes, by which a reason is believed


def nested(segmentation: Any) -> Any:
    """Return a segmentation whose polygons may be written in another way as COCO writes them.

    A polygon may stand without its list, [x1, y1, ...], and its points may be lists of their own.
    What is neither is returned as it is.
    """
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation
    if not any(isinstance(each, list) for each in segmentation):
        return [segmentation]
    if is_points(segmentation):
        return [list(itertools.chain.from_iterable(segmentation))]
    return [
        list(itertools.chain.from_iterable(each))
        if isinstance(each, list) and is_points(each)
        else each
        for each in segmentation
    ]


def is_points(parts: list[Any]) -> bool:
    """Return whether the parts of a segmentation are the points of one polygon."""
    return len(parts) >= 3 and all(isinstance(each, list) and len(each) == 2 for each in parts)


def is_drawable(polygon: Sequence[float]) -> bool:
    """Return whether a polygon has at least three points, x and y each."""
    return len(polygon) >= 6 and len(polygon) % 2 == 0


def have_bad_parts(segmentations: Sequence[Any]) -> Array:
    """Return which segmentations have a polygon that cannot be drawn, bool [n]."""
    polygons = [each if isinstance(each, list) else [] for each in segmentations]
    lengths = np.array(list(map(len, itertools.chain.from_iterable(polygons))), np.int64)
    owners = np.repeat(np.arange(len(polygons)), list(map(len, polygons)))
    bad = owners[(lengths < 6) | (lengths % 2 == 1)]
    return np.bincount(bad, minlength=len(polygons)) > 0


def plain_counts(counts: Any) -> Any:
    """Return compressed run lengths that were written as Python's bytes, "b'...'", as text."""
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"'):  # of which ' and " are in no counts
        with contextlib.suppress(ValueError, SyntaxError, AttributeError):
            return ast.literal_eval(counts).decode("ascii")
    return counts


def outline_boxes(segmentations: Sequence[Any], encoded: Sequence[bytes], sizes: Array) -> Array:
    """Return x1, y1, x2, y2 around each segmentation, NaN where there is none, float64 [n, 4].

    Args:
        segmentations: Drawable polygons, sound run lengths, or something else for none.
        encoded: The same in msgpack.
        sizes: Width and height of the images in pixels, float64 [n, 2].
    """
    found = np.full((len(segmentations), 4), np.nan)
    rows = [row for row, each in enumerate(segmentations) if isinstance(each, list) and each]
    if rows:
        counts = [sum(map(len, segmentations[row])) for row in rows]
        numbers = b"".join(
            # A number is a byte and 8 of its own: taken from there, it need not be packed again.
            encoded[row][-9 * count :]
            if len(segmentations[row]) == 1
            else _MSGPACK.encode(list(itertools.chain.from_iterable(segmentations[row])))[
                -9 * count :
            ]
            for row, count in zip(rows, counts, strict=True)
        )
        x, y = np.frombuffer(numbers, _NUMBER)["value"].astype(np.float64).reshape(-1, 2).T
        starts = np.cumsum([0, *counts[:-1]]) // 2
        ends = [getattr(np, name).reduceat for name in ("minimum", "maximum")]
        found[rows] = np.stack([end(values, starts) for end in ends for values in (x, y)], axis=1)
    for row, each in enumerate(segmentations):
        if isinstance(each, msgspec.Struct):
            rle = msgspec.structs.asdict(each)
            if isinstance(rle["counts"], list):
                width, height = sizes[row].astype(int).tolist()
                rle = coco_mask.frPyObjects([rle], height, width)[0]
            left, top, width, height = coco_mask.toBbox(rle).tolist()
            found[row] = left, top, left + width, top + height
    return found


def do_not_fit(boxes: Array, outlines: Array) -> Array:
    """Return which boxes differ from those of their outlines by more than rounding, bool [n].

    Args:
        boxes: x1, y1, x2, y2 of the annotations.
        outlines: Those of ``outline_boxes``.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.abs(boxes - outlines).max(axis=1, initial=0)
        unfit: Array = np.logical_and(far > _NEAR, _iou(boxes, outlines) < _FITS)
    return unfit


def outside(outlines: Array, sizes: Array) -> Array:
    """Return which outlines do not touch their images, bool [n]."""
    with np.errstate(invalid="ignore"):
        beyond = [outlines[:, :2] >= sizes, outlines[:, 2:] <= 0]
    return np.asarray(np.concatenate(beyond, axis=1).any(axis=1))


def why_unfit(boxes: Array, outlines: Array, sizes: Array) -> str:
    """Return what boxes that do not fit their outlines look like; "" if nobody knows.

    Args:
        boxes: x1, y1, x2, y2 of the annotations.
        outlines: Those of ``outline_boxes``.
        sizes: Width and height of the images in pixels.
    """
    with np.errstate(all="ignore"):
        near, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        scale = np.median((outlines[:, 2:] - outlines[:, :2]) / sides, axis=0)
        shift = np.median(outlines - boxes, axis=0)
        both = np.tile(sizes, 2)
        factor = " x ".join(f"{each:.3g}" for each in dict.fromkeys(scale.round(2).tolist()))
        moved = ", ".join(f"{each:.3g}" for each in shift[:2])
        reasons = [
            ("bbox looks like [x1, y1, x2, y2]", np.hstack([near, sides]), outlines),
            ("x and y look swapped in either of them", boxes[:, [1, 0, 3, 2]], outlines),
            ("the outlines look like fractions of the image's sides", boxes, outlines * both),
            ("bbox looks like fractions of the image's sides", boxes * both, outlines),
            (
                "bbox looks like [middle x, middle y, width, height]",
                boxes - np.tile(sides / 2, 2),
                outlines,
            ),
            (f"the outlines look scaled by {factor}", boxes * np.tile(scale, 2), outlines),
            (f"the outlines look moved by {moved} pixels", boxes + np.tile(shift[:2], 2), outlines),
        ]
        for said, one, other in reasons:
            if (_iou(one, other) > _EXPLAINED).mean() >= _MOST:
                return said
    return ""


def _iou(boxes: Array, others: Array) -> Array:
    """IoU of boxes x1, y1, x2, y2 and as many others."""
    inner = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    shared = inner.clip(0).prod(axis=1)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others)]
    found: Array = shared / np.maximum(areas[0] + areas[1] - shared, 1e-12)
    return found
