"""The rules for COCO annotations: which are sound, left out, changed or refused."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from botvision.datasets.check.findings import (
    Finding,
    Report,
    Severity,
    about_annotation,
    corners_for_sides,
    fractions_for_pixels,
    raise_errors,
)
from botvision.datasets.coco.outlines import (
    do_not_fit,
    have_bad_parts,
    is_drawable,
    nested,
    outline_boxes,
    outside,
    plain_counts,
    why_unfit,
)
from botvision.datasets.coco.records import (
    NO_AREA,
    NOT_DRAWABLE,
    UNKNOWN_IMAGE,
    Annotation,
    Decoded,
    Id,
    RunLengths,
    as_number,
    clip_box,
    decode_annotations,
    duplicate_id,
    loaded,
    run_length_fault,
)
from botvision.datasets.coco.store import Array, Category, InstanceTable, Record, Tally

OUTSIDE = "outline outside the image"
SAME = "the same as another annotation (image, class, box and outline)"
BAD_PARTS = "outlines with a part of fewer than 3 points or odd length, which is left out"
NOT_FITTING = "outlines that do not fit their bbox"
_SKIPPED = (UNKNOWN_IMAGE, NO_AREA, NOT_DRAWABLE, OUTSIDE)
_CLIPPED = "clipped"

_CHUNK = 512  # annotations that exist as Python objects at a time
_SMALLEST = 16.0  # pixels of an image's side, above which boxes of fractions are told
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_FEWEST = 3  # fewer boxes that are odd may be so by themselves
_MSGPACK = msgspec.msgpack.Encoder()


@dataclass(frozen=True)
class _Unfit:
    """Annotations of a chunk whose outline does not fit the box; both as x1, y1, x2, y2."""

    ids: list[Id]
    boxes: Array
    outlines: Array
    sizes: Array


@dataclass(frozen=True)
class Usable:
    """Usable annotations of a chunk, in file order.

    Attributes:
        ids: Ids of the annotations.
        segmentations: Polygons or run lengths in msgpack, an empty list for none.
        table: Their figures.
    """

    ids: list[Id]
    segmentations: list[bytes]
    table: InstanceTable

    def where(self, kept: Array) -> "Usable":
        """Return some of the annotations.

        Args:
            kept: Which ones, bool [n].
        """
        columns = (getattr(self.table, each.name)[kept] for each in fields(InstanceTable))
        return Usable(
            list(itertools.compress(self.ids, kept.tolist())),
            list(itertools.compress(self.segmentations, kept.tolist())),
            InstanceTable(*columns),
        )


class AnnotationChecks:
    """The rules for annotations, applied to a file's records chunk by chunk.

    Args:
        path: Annotation file, for messages.
        images: The file's images.
        categories: The file's categories.
        report: Receives every finding.

    Attributes:
        categories: Sound categories, sorted by id.
        tally: Counts of the annotations so far.
    """

    def __init__(
        self, path: Path, images: Decoded, categories: Decoded, report: Report = raise_errors
    ) -> None:
        self.tally = Tally()
        self.categories: list[Category] = sorted(categories.sound, key=lambda each: each.id)
        self._path, self._report = path, report
        self._refused_images, self._refused_categories = images.refused, categories.refused
        self._image_index = {each.id: index for index, each in enumerate(images.sound)}
        self._category_index = {each.id: index for index, each in enumerate(self.categories)}
        sizes = [(each.width, each.height) for each in images.sound]
        # The last row is that of unknown images.
        self._sizes = np.array([*sizes, (np.nan, np.nan)], np.float64)
        self._seen: set[Id] = set()
        self._corners = np.zeros(4, np.int64)
        self._outlined = 0
        self._unfit: list[_Unfit] = []

    def usable(self, raws: list[msgspec.Raw]) -> list[Usable]:
        """Return the usable annotations of a file, in chunks.

        Args:
            raws: Raw JSON of all annotations.
        """
        self.tally.records = len(raws)
        chunks = [
            self._check(*self._decode(start, raws[start : start + _CHUNK]))
            for start in range(0, max(1, len(raws)), _CHUNK)
        ]
        if not self._look_like_another_form():
            self._report_unfit()
        return self._without_twins(chunks)

    def _decode(
        self, start: int, raws: list[msgspec.Raw]
    ) -> tuple[list[msgspec.Raw], list[Annotation]]:
        sources, records = decode_annotations(self._path, start, raws, self._report)
        self.tally.refused += len(raws) - len(records)
        return sources, records

    def _check(self, raws: list[msgspec.Raw], records: list[Annotation]) -> Usable:
        image_index = self._images_of(records)
        category_index = _indices(self._category_index, [each.category_id for each in records])
        given = np.array([each.bbox for each in records], np.float64).reshape(-1, 4)
        sizes = self._sizes[image_index]
        is_box = ~np.isnan(given).any(axis=1)
        known = (image_index >= 0) & (category_index >= 0) & is_box
        self._corners += _count_forms(given[known], sizes[known])
        with np.errstate(over="ignore"):
            corners = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
        boxes, has_area, over = clip_box(corners.T, sizes.T)
        unusable = self._faulty_run_lengths(records, sizes, known & has_area)
        not_drawable = self._leave_out_parts(records)
        crowds = np.array([each.iscrowd for each in records], bool)
        looked_at = known & has_area & ~unusable & ~not_drawable & ~crowds
        encoded = [
            b"" if bad else _MSGPACK.encode(each.segmentation or [])
            for each, bad in zip(records, unusable.tolist(), strict=True)
        ]
        shapes = [
            each.segmentation if look else None
            for each, look in zip(records, looked_at.tolist(), strict=True)
        ]
        outlines = outline_boxes(shapes, encoded, sizes)
        self._compare(records, corners, outlines, sizes)
        broken = {
            "id": self._are_duplicates([each.id for each in records]),
            "category_id": category_index < 0,
            UNKNOWN_IMAGE: image_index < 0,
            "bbox": ~is_box,
            NO_AREA: ~has_area,
            "segmentation": unusable,
            NOT_DRAWABLE: not_drawable,
            OUTSIDE: outside(outlines, sizes),
            _CLIPPED: over,
        }
        rules = list(broken)
        first = np.select(list(broken.values()), range(len(rules)), default=len(rules))
        for row in np.flatnonzero(first < len(rules)).tolist():
            self._count(rules[first[row]], raws[row], records[row], sizes[row])
        kept = first >= rules.index(_CLIPPED)
        chosen = list(itertools.compress(records, kept.tolist()))
        return Usable(
            ids=[each.id for each in chosen],
            segmentations=list(itertools.compress(encoded, kept.tolist())),
            table=InstanceTable(
                image_index[kept],
                category_index[kept],
                np.stack(boxes, axis=1)[kept],
                areas=np.array([each.area for each in chosen], np.float64),
                crowds=crowds[kept],
            ),
        )

    def _images_of(self, records: list[Annotation]) -> Array:
        """Return the index of each annotation's image, -1 for an unknown one."""
        ids = [each.image_id for each in records]
        found = _indices(self._image_index, ids)
        if (found < 0).any():
            # An id as a number in one list and as text in the other is still the same number.
            for row in np.flatnonzero(found < 0).tolist():
                found[row] = self._image_numbers.get(as_number(ids[row]), -1)
        return found

    @cached_property
    def _image_numbers(self) -> dict[int | None, int]:
        """Index of the image of each number, but for those that two ids stand for."""
        counts = Counter(map(as_number, self._image_index))
        return {
            number: index
            for each, index in self._image_index.items()
            if (number := as_number(each)) is not None and counts[number] == 1
        }

    def _faulty_run_lengths(
        self, records: list[Annotation], sizes: Array, looked_at: Array
    ) -> Array:
        """Return which annotations have a segmentation that is neither polygons nor sound."""
        outlines: list[Any] = [each.segmentation for each in records]
        faulty = np.array([each is msgspec.UNSET for each in outlines], bool)
        for row in np.flatnonzero(looked_at).tolist():
            if isinstance(segmentation := outlines[row], RunLengths):
                segmentation.counts = plain_counts(segmentation.counts)
                width, height = sizes[row].tolist()
                fields = msgspec.structs.asdict(segmentation)
                faulty[row] = bool(run_length_fault(fields, height, width))
        return faulty

    def _leave_out_parts(self, records: list[Annotation]) -> Array:
        """Leave out the parts of outlines that cannot be drawn; return where none is left."""
        undrawable = np.zeros(len(records), bool)
        for row in np.flatnonzero(have_bad_parts([each.segmentation for each in records])).tolist():
            record = records[row]
            parts: Any = nested(record.segmentation)
            good = [each for each in parts if is_drawable(each)]
            undrawable[row] = not good
            record.segmentation = good
            if good and len(good) < len(parts):
                self.tally.noted[BAD_PARTS] += 1
                self._note(
                    record.id,
                    "segmentation",
                    f"{len(parts) - len(good)} of {len(parts)} polygons have fewer than 3 points "
                    "or odd length and are left out",
                )
        return undrawable

    def _compare(
        self, records: list[Annotation], corners: Array, outlines: Array, sizes: Array
    ) -> None:
        """Remember the annotations whose outline does not fit the box."""
        self._outlined += int((~np.isnan(outlines[:, 0])).sum())
        unfit = do_not_fit(corners, outlines)
        if unfit.any():
            ids = list(itertools.compress([each.id for each in records], unfit.tolist()))
            self._unfit.append(_Unfit(ids, corners[unfit], outlines[unfit], sizes[unfit]))

    def _report_unfit(self) -> None:
        if not self._unfit:
            return
        ids = [each for chunk in self._unfit for each in chunk.ids]
        boxes, outlines, sizes = (
            np.concatenate([getattr(chunk, name) for chunk in self._unfit])
            for name in ("boxes", "outlines", "sizes")
        )
        self.tally.noted[NOT_FITTING] += len(ids)
        if len(ids) >= _FEWEST and 2 * len(ids) >= self._outlined:
            why = why_unfit(boxes, outlines, sizes)
            said = (
                f"{len(ids):,} of {self._outlined:,} outlines do not fit their bbox"
                + (f": {why}" if why else "")
                + f"; annotation {ids[0]} has the bbox {_sides(boxes[0])}, its outline "
                f"{_sides(outlines[0])}"
            )
            self._report(Finding("error", str(self._path), "annotations", field="bbox", said=said))
            return
        for number, box, outline in zip(ids, boxes, outlines, strict=True):
            said = f"{_sides(box)} does not fit the outline, whose box is {_sides(outline)}"
            self._note(number, "bbox", said)

    def _look_like_another_form(self) -> bool:
        """Report boxes that are corners or fractions; return whether there are such."""
        boxes, overflowing, fitting, fractions = self._corners.tolist()
        # Read as sides, corners reach out of the image as soon as the middle of a box is in its
        # right or lower half, which is so for most; read as corners, honest sides hardly ever fit.
        many = overflowing >= _FEWEST and 2 * overflowing > boxes
        if many and fitting >= 0.95 * boxes:
            self._report(corners_for_sides(self._path, overflowing, boxes))
            return True
        if fractions >= _FEWEST and fractions >= 0.95 * boxes:
            self._report(fractions_for_pixels(self._path, fractions, boxes))
            return True
        return False

    def _without_twins(self, chunks: list[Usable]) -> list[Usable]:
        """Leave out annotations that are the same as one before: half of them cannot be found."""
        tables = [chunk.table for chunk in chunks]
        _, groups = np.unique(_hashed(tables), return_inverse=True)
        repeated = (np.bincount(groups)[groups] > 1) if len(groups) else np.zeros(0, bool)
        if not repeated.any():
            return chunks
        first: dict[Any, Id] = {}
        found, start = [], 0
        for chunk in chunks:
            kept = np.ones(len(chunk.ids), bool)
            for row in np.flatnonzero(repeated[start : start + len(kept)]).tolist():
                table, number = chunk.table, chunk.ids[row]
                figures = (table.image_index, table.category_index, table.crowds)
                key = (
                    *(int(each[row]) for each in figures),
                    *table.boxes[row].tolist(),
                    chunk.segmentations[row],
                )
                other = first.setdefault(key, number)
                if other is not number:
                    kept[row] = False
                    self.tally.skipped[SAME] += 1
                    said = f"the same as annotation {other}: image, class, box and outline"
                    self._note(number, "bbox", said, "skipped")
            start += len(kept)
            found.append(chunk.where(kept))
        return found

    def _are_duplicates(self, ids: list[Id]) -> Array:
        fresh = set(ids)
        if len(fresh) == len(ids) and self._seen.isdisjoint(fresh):
            self._seen |= fresh
            return np.zeros(len(ids), bool)
        duplicates = []
        for each in ids:
            duplicates.append(each in self._seen)
            self._seen.add(each)
        return np.array(duplicates, bool)

    def _note(self, number: Id, field: str, said: str, severity: Severity = "counted") -> None:
        """Report what training accepts or leaves out."""
        if self._report is not raise_errors:
            self._report(
                about_annotation(
                    severity, self._path, number, field, expected="", value="", said=said
                )
            )

    def _count(self, rule: str, raw: msgspec.Raw, record: Annotation, size: Array) -> None:
        """Count an annotation that breaks a rule, and report it."""
        harmless = rule in (*_SKIPPED, _CLIPPED)
        if rule == UNKNOWN_IMAGE and record.image_id in self._refused_images:
            self.tally.refused += 1
            return
        if rule in _SKIPPED:
            self.tally.skipped[rule] += 1
        self.tally.clipped += rule == _CLIPPED
        self.tally.refused += not harmless
        if harmless and self._report is raise_errors:
            return
        if rule == "id":
            self._report(duplicate_id(self._path, "annotations", record.id))
        elif rule != "category_id" or record.category_id not in self._refused_categories:
            self._report(_finding(self._path, rule, loaded(raw), size))


def _finding(path: Path, rule: str, source: Record, size: Array) -> Finding:
    width, height = size.tolist()
    of_size = f"the image of {width:g} x {height:g}"
    severity: Any
    severity, name, expected = {
        "category_id": ("error", "category_id", "one of the file's categories"),
        UNKNOWN_IMAGE: ("skipped", "image_id", "one of the file's images"),
        "bbox": ("error", "bbox", "4 finite numbers [x, y, width, height]"),
        NO_AREA: ("skipped", "bbox", f"width and height above 0 in {of_size}"),
        "segmentation": ("error", "segmentation", "polygons of finite numbers or run lengths"),
        NOT_DRAWABLE: ("skipped", "segmentation", "polygons of at least 3 points, x and y each"),
        OUTSIDE: ("skipped", "segmentation", f"an outline inside {of_size}"),
        _CLIPPED: ("clipped", "bbox", f"a box inside {of_size}"),
    }[rule]
    value, said = source[name], ""
    if rule == "segmentation" and isinstance(value, dict):
        said = run_length_fault(value, height, width)
    return about_annotation(
        severity, path, source["id"], name, expected=expected, value=value, said=said
    )


def _count_forms(boxes: Array, sizes: Array) -> Array:
    """Count boxes [n, 4] of some forms.

    Returns:
        The number of all, of those that reach far out of their images, that fit if sides were
        corners, and that are below one pixel in all, as fractions of the image's sides are.
    """
    near, sides = boxes[:, :2], boxes[:, 2:]
    with np.errstate(over="ignore"):
        overflowing = (near + sides > 1.02 * sizes + 1).any(axis=1)
    fitting = ((near >= -1) & (sides > near) & (sides <= sizes + 1)).all(axis=1)
    fractions = ((boxes >= 0) & (boxes <= 1)).all(axis=1) & (sizes > _SMALLEST).all(axis=1)
    return np.array([len(boxes), overflowing.sum(), fitting.sum(), fractions.sum()])


def _hashed(tables: Sequence[InstanceTable]) -> Array:
    """Return numbers that are equal where image, class, crowd and box are, uint64 [n]."""
    found = []
    for table in tables:
        total = table.image_index.astype(np.uint64) * np.uint64(2) + table.crowds
        for each in (table.category_index.astype(np.uint64), *table.boxes.view(np.uint64).T):
            total = (total ^ each) * _PRIME
            total ^= total >> np.uint64(29)
        found.append(total)
    return np.concatenate(found)


def _indices(known: dict[Any, int], values: list[Any]) -> Array:
    return np.array([known.get(each, -1) for each in values], np.int64)


def _sides(corners: Array) -> str:
    left, top, right, bottom = corners.tolist()
    return "[" + ", ".join(f"{each:.6g}" for each in (left, top, right - left, bottom - top)) + "]"
