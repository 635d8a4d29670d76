"""Reading a sound COCO instances file fast: a typed parser, and checks of many records at once."""

import contextlib
import gc
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from botvision.datasets.check.findings import (
    Finding,
    cut_off,
    not_drawable,
    unknown_image,
    without_area,
)
from botvision.datasets.coco.checks import (
    NO_AREA,
    NOT_DRAWABLE,
    ROUNDING,
    UNKNOWN_IMAGE,
    run_length_fault,
)
from botvision.datasets.coco.corners import CornerCounts, count_corners, look_like_corners
from botvision.datasets.coco.packing import Image, Instance, Packer, RunLengths, Tally
from botvision.datasets.coco.store import AnnotationArrays, Array

# Records that exist as Python objects at a time; the memory of some goes to the next.
_CHUNK = 512


class _Category(msgspec.Struct):
    id: int
    name: str


class _File(msgspec.Struct):
    images: list[Image]
    categories: list[_Category]
    annotations: list[msgspec.Raw]  # where each is; they are parsed by and by


class _UnusualError(ValueError):
    """Something is wrong or rare."""


def read_sound(path: Path, findings: list[Finding] | None = None) -> AnnotationArrays | None:
    """The arrays of a file, or None unless everything in it is sound and of the usual form.

    What it gives is what ``check_annotations`` gives.

    Args:
        path: The file.
        findings: Takes what is left out or clipped; of no use if the result is None.
    """
    try:
        with _without_collection():
            return _Reading(path, findings).read()
    except (OSError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Nothing here refers to itself, and looking for it takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Reading:
    """The reading of one file, some annotations at a time."""

    def __init__(self, path: Path, findings: list[Finding] | None) -> None:
        self._path, self._findings = path, findings
        content = msgspec.json.decode(path.read_bytes(), type=_File)
        sizes = np.array([(each.width, each.height) for each in content.images], np.float64)
        self._sizes = sizes.reshape(-1, 2)
        if not (np.isfinite(self._sizes) & (self._sizes > 0)).all():
            raise _UnusualError
        categories = sorted(content.categories, key=lambda category: category.id)
        self._image_places = {image.id: place for place, image in enumerate(content.images)}
        self._category_places = {category.id: place for place, category in enumerate(categories)}
        if len(self._image_places) < len(content.images):
            raise _UnusualError
        if len(self._category_places) < len(categories):
            raise _UnusualError
        self._packer = Packer(content.images, [msgspec.structs.asdict(each) for each in categories])
        self._annotations = content.annotations
        self._tally = Tally(records=len(content.annotations))
        self._corners = CornerCounts()

    def read(self) -> AnnotationArrays:
        """All of it, or an ``_UnusualError`` or what the parser raises."""
        decoder = msgspec.json.Decoder(list[Instance])
        ids = [np.zeros(0, np.int64)]
        for start in range(0, len(self._annotations), _CHUNK):
            raw = self._annotations[start : start + _CHUNK]
            instances = decoder.decode(b"[" + b",".join(raw) + b"]")
            ids.append(np.array([each.id for each in instances], np.int64))
            self._add(instances)
        if len(np.unique(np.concatenate(ids))) < len(self._annotations):
            raise _UnusualError
        if look_like_corners(self._corners):
            raise _UnusualError
        return self._packer.arrays(self._tally)

    def _add(self, instances: Sequence[Instance]) -> None:
        """Check instances and give the sound ones to the packer."""
        images = np.array([self._image_places.get(each.image_id, -1) for each in instances])
        categories = np.array(
            [self._category_places.get(each.category_id, -1) for each in instances]
        )
        if (categories < 0).any():
            raise _UnusualError
        known = images >= 0
        given = np.array([each.bbox for each in instances])
        boxes, has_area, over = _clipped(given, self._sizes, images)
        if known.any():
            self._corners += count_corners(given[known], self._sizes[images[known]])
        drawable = _drawable(instances)
        reasons = {
            UNKNOWN_IMAGE: ~known,
            NO_AREA: known & ~has_area,
            NOT_DRAWABLE: known & has_area & ~drawable,
        }
        for reason, which in reasons.items():
            if count := int(which.sum()):
                self._tally.skipped[reason] += count
        usable = known & has_area & drawable
        over &= usable
        self._tally.clipped += int(over.sum())
        if self._findings is not None:
            for place in np.flatnonzero(~usable | over).tolist():
                why = next((name for name, which in reasons.items() if which[place]), None)
                size = self._sizes[images[place]].tolist() if known[place] else []
                self._findings.append(self._finding(instances[place], why, size))
        kept = np.flatnonzero(usable)
        chosen = [instances[place] for place in kept.tolist()]
        for instance, image in zip(chosen, images[kept].tolist(), strict=True):
            if isinstance(instance.segmentation, RunLengths):
                _check_run_lengths(instance.segmentation, *self._sizes[image].tolist())
        self._packer.add(
            chosen,
            image_places=images[kept],
            category_places=categories[kept],
            boxes=boxes[kept],
        )

    def _finding(self, instance: Instance, reason: str | None, size: Sequence[float]) -> Finding:
        if reason == UNKNOWN_IMAGE:
            return unknown_image(self._path, instance.id, instance.image_id)
        if reason == NO_AREA:
            return without_area(self._path, instance.id, instance.bbox, size)
        if reason == NOT_DRAWABLE:
            return not_drawable(self._path, instance.id, instance.segmentation)
        return cut_off(self._path, instance.id, instance.bbox, size)


def _check_run_lengths(run_lengths: RunLengths, width: float, height: float) -> None:
    size, counts = run_lengths.size, run_lengths.counts
    if isinstance(counts, list):  # of whole numbers, as the parser has seen
        sound = size == [height, width] and sum(counts) == height * width
        if not sound or min(counts) < 0:
            raise _UnusualError
    elif run_length_fault(msgspec.structs.asdict(run_lengths), height, width):
        raise _UnusualError


def _clipped(boxes: Array, sizes: Array, images: Array) -> tuple[Array, Array, Array]:
    """Boxes inside their images, which have an area there, and which reached out of them."""
    if not len(sizes):
        return boxes, np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
    near = np.maximum(boxes[:, :2], 0.0)
    with np.errstate(over="ignore"):
        ends = boxes[:, :2] + boxes[:, 2:]
        far = np.minimum(ends, sizes[images])
        has_area = ((boxes[:, 2:] > 0) & (far > near)).all(axis=1)
        over = ((near - boxes[:, :2] > ROUNDING) | (ends - far > ROUNDING)).any(axis=1)
        return np.concatenate([near, far - near], axis=1), has_area, over


def _drawable(instances: Sequence[Instance]) -> Array:
    """Which have no polygon of fewer than three points or odd length."""
    polygons = [
        each.segmentation if isinstance(each.segmentation, list) else [] for each in instances
    ]
    counts = np.array(list(map(len, polygons)))
    lengths = np.array(list(map(len, itertools.chain.from_iterable(polygons))), np.int64)
    owners = np.repeat(np.arange(len(instances)), counts)
    bad = owners[(lengths < 6) | (lengths % 2 == 1)]
    return np.bincount(bad, minlength=len(instances)) == 0
