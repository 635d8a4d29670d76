"""The rules for COCO records: types of their fields, and which annotations can be trained on.

Records come as raw JSON. Sound ones are decoded in chunks by the types below; where that fails,
records are decoded one by one, and their faults are reported. All other rules are applied to whole
chunks of decoded records, whichever way they came.
"""

import contextlib
import itertools
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
import numpy as np
from faster_coco_eval.core import mask as coco_mask

from botvision.datasets.check.findings import (
    Finding,
    Report,
    about_annotation,
    corners_for_sides,
    raise_errors,
    shown,
)
from botvision.datasets.coco.store import Array, Category, InstanceTable, Record, Tally

UNKNOWN_IMAGE = "image_id without an image"
NO_AREA = "box without area inside the image"
NOT_DRAWABLE = "polygon of fewer than 3 points or odd length"
_SKIPPED = (UNKNOWN_IMAGE, NO_AREA, NOT_DRAWABLE)
_CLIPPED = "clipped"

_ROUNDING = 0.1  # pixels that a box may reach out of its image without being called clipped
_CHUNK = 512  # annotations that exist as Python objects at a time
_FEWEST_CORNERS = 3  # fewer boxes that reach out of their images may do so by themselves
NOT_DECODED = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
_LARGEST = sys.float_info.max

Id = int | str
Number = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
Side = Annotated[float, msgspec.Meta(gt=0, le=_LARGEST, description="a number above 0")]
Box = tuple[Number, Number, Number, Number]


class Image(msgspec.Struct, gc=False):
    """COCO image record."""

    id: Id
    file_name: str
    width: Side
    height: Side


class RunLengths(msgspec.Struct, gc=False):
    """Segmentation of run lengths, compressed (a string) or not."""

    size: list[int]
    counts: list[int] | str


Segmentation = list[list[Number]] | RunLengths | None


class _References(msgspec.Struct, gc=False):
    """Fields that every annotation needs for its findings."""

    id: Id
    image_id: Id
    category_id: Any
    bbox: Any


class Annotation(msgspec.Struct, gc=False):
    """COCO annotation record."""

    id: Id
    image_id: Id
    category_id: int
    bbox: Box
    segmentation: Segmentation = None
    iscrowd: int = 0
    area: Number | None = None


_ANNOTATIONS = msgspec.json.Decoder(list[Annotation])
_MSGPACK = msgspec.msgpack.Encoder()


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


class Decoded:
    """Images or categories of a file, without those that break a rule.

    Args:
        path: Annotation file, for messages.
        key: "images" or "categories".
        records: Raw JSON of the list's records.
        kind: Type of the records.
        report: Receives every finding.

    Attributes:
        sound: Decoded records in file order.
        refused: Ids of the other records. A reference to one of them is not wrong itself.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        records: Sequence[msgspec.Raw],
        kind: type[Any],
        report: Report = raise_errors,
    ) -> None:
        self.sound: list[Any] = []
        self.refused: set[Any] = set()
        seen: set[Id] = set()
        decoder: Any = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        try:
            decoded: list[Any] = decoder.decode(_joined(records))
        except NOT_DECODED:
            decoded = [
                self._decoded(path, f"{key}[{number}]", raw, kind, report)
                for number, raw in enumerate(records)
            ]
        for record in decoded:
            if record is not None and record.id in seen:
                report(_duplicate(path, key, record.id))
            elif record is not None:
                seen.add(record.id)
                self.sound.append(record)

    def _decoded(
        self, path: Path, where: str, raw: msgspec.Raw, kind: type[Any], report: Report
    ) -> Any:
        source = read_record(path, where, raw, kind, report)
        if source is not None:
            return msgspec.convert(source, kind)
        with contextlib.suppress(*NOT_DECODED, TypeError, KeyError):
            self.refused.add(_loaded(raw)["id"])
        return None


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
        self._corners = np.zeros(3, np.int64)

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
        boxes, overflowing, fitting = self._corners.tolist()
        # Read as sides, corners reach out of the image as soon as the middle of a box is in its
        # right or lower half, which is so for most; read as corners, honest sides hardly ever fit.
        many = overflowing >= _FEWEST_CORNERS and 2 * overflowing > boxes
        if many and fitting >= 0.95 * boxes:
            self._report(corners_for_sides(self._path, overflowing, boxes))
        return chunks

    def _decode(
        self, start: int, raws: list[msgspec.Raw]
    ) -> tuple[list[msgspec.Raw], list[Annotation]]:
        """Return annotations and their sources, without those that lack a field."""
        with contextlib.suppress(*NOT_DECODED):
            return raws, _ANNOTATIONS.decode(_joined(raws))
        if len(raws) > 1:
            middle = len(raws) // 2
            sources, records = self._decode(start, raws[:middle])
            more_sources, more_records = self._decode(start + middle, raws[middle:])
            return sources + more_sources, records + more_records
        where = f"annotations[{start}]"
        source = read_record(self._path, where, raws[0], _References, self._report)
        if source is None:
            self.tally.refused += 1
            return [], []
        return raws, [_odd_annotation(source)]

    def _check(self, raws: list[msgspec.Raw], records: list[Annotation]) -> Usable:
        image_index = _indices(self._image_index, [each.image_id for each in records])
        category_index = _indices(self._category_index, [each.category_id for each in records])
        given = np.array([each.bbox for each in records], np.float64).reshape(-1, 4)
        sizes = self._sizes[image_index]
        is_box = ~np.isnan(given).any(axis=1)
        known = (image_index >= 0) & (category_index >= 0) & is_box
        self._corners += _count_corners(given[known], sizes[known])
        with np.errstate(over="ignore"):
            corners = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
        boxes, has_area, over = clip_box(corners.T, sizes.T)
        segmentations: list[Any] = [each.segmentation for each in records]
        unusable = np.array([each is msgspec.UNSET for each in segmentations], bool)
        for row in np.flatnonzero(known & has_area).tolist():
            if isinstance(segmentation := segmentations[row], RunLengths):
                width, height = sizes[row].tolist()
                fields = msgspec.structs.asdict(segmentation)
                unusable[row] = bool(run_length_fault(fields, height, width))
        broken = {
            "id": self._are_duplicates([each.id for each in records]),
            "category_id": category_index < 0,
            UNKNOWN_IMAGE: image_index < 0,
            "bbox": ~is_box,
            NO_AREA: ~has_area,
            "segmentation": unusable,
            NOT_DRAWABLE: _not_drawable(segmentations),
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
            segmentations=[_MSGPACK.encode(each.segmentation or []) for each in chosen],
            table=InstanceTable(
                image_index[kept],
                category_index[kept],
                np.stack(boxes, axis=1)[kept],
                areas=np.array([each.area for each in chosen], np.float64),
                crowds=np.array([each.iscrowd for each in chosen], bool),
            ),
        )

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
            self._report(_duplicate(self._path, "annotations", record.id))
        elif rule != "category_id" or record.category_id not in self._refused_categories:
            self._report(_finding(self._path, rule, _loaded(raw), size))


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
        _CLIPPED: ("clipped", "bbox", f"a box inside {of_size}"),
    }[rule]
    value, said = source[name], ""
    if rule == "segmentation" and isinstance(value, dict):
        said = run_length_fault(value, height, width)
    return about_annotation(
        severity, path, source["id"], name, expected=expected, value=value, said=said
    )


def read_record(
    path: Path, where: str, raw: msgspec.Raw, kind: type[Any], report: Report
) -> Record | None:
    """Return a record, or None after reporting that a field is missing or of another type.

    Args:
        path: Annotation file, for messages.
        where: Part of the file, such as "images[3]".
        raw: JSON of the record.
        kind: Type of the record.
        report: Receives the finding.
    """
    try:
        source = _loaded(raw)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits
        report(Finding("error", str(path), where, said=f"cannot be read ({error})"))
        return None
    finding = field_fault(path, where, source, kind)
    if finding is None:
        return source
    report(finding)
    return None


def field_fault(path: Path, where: str, source: Any, kind: type[Any]) -> Finding | None:
    """Return the finding if a required field of a record is missing or of another type."""
    fields = get_type_hints(kind, include_extras=True)
    given = source if isinstance(source, dict) else {}
    number = given["id"] if _fits(given.get("id"), Id) else None
    if missing := ", ".join(sorted(fields.keys() - given.keys())):
        said = f"{missing} missing"
        return Finding("error", str(path), where, number, "", shown(source), missing, said)
    where = f"{where} with id {shown(given['id'])}" if "id" in given else where
    for name, field_type in fields.items():
        if not _fits(given[name], field_type):
            value, expected = shown(given[name]), _described(field_type)
            return Finding("error", str(path), where, number, name, value, expected)
    return None


def run_length_fault(rle: Record, height: float, width: float) -> str:
    """Return the fault of run lengths, or "" if there is none.

    Args:
        rle: COCO's record with size and counts.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    expected = f"expected run lengths of {height:g} x {width:g}"
    size, counts = rle.get("size"), rle.get("counts")
    if not _fits(size, list[int]) or size != [height, width]:
        return f"{expected}, got size {size!r}"
    if isinstance(counts, list):
        if not _fits(counts, list[int]) or min(counts, default=0) < 0:
            return f"{expected}, got counts that are no whole numbers from 0"
        if sum(counts) != height * width:
            return f"{expected}, got counts for {sum(counts)} pixels"
        return ""
    if not isinstance(counts, str):
        return f"{expected}, got counts of type {type(counts).__name__}"
    try:
        coco_mask.decode(rle)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        return f"{expected}, got counts that cannot be decoded ({error})"
    return ""


def clip_box(corners: Any, size: Any) -> tuple[tuple[Any, Any, Any, Any], Any, Any]:
    """Clip boxes to their images.

    Args:
        corners: x1, y1, x2 and y2 in pixels, each a number or an array.
        size: Width and height of the images in pixels, likewise.

    Returns:
        x, y, width and height; whether the box has an area inside the image; and whether it
        reached out of the image by more than rounding.
    """
    left, top, right, bottom = corners
    x, y = np.maximum(left, 0.0), np.maximum(top, 0.0)
    end_x, end_y = np.minimum(right, size[0]), np.minimum(bottom, size[1])
    has_area = (end_x > x) & (end_y > y)
    over = (np.maximum(x - left, y - top) > _ROUNDING) | (
        np.maximum(right - end_x, bottom - end_y) > _ROUNDING
    )
    return (x, y, end_x - x, end_y - y), has_area, over


def is_finite(value: Any) -> bool:
    """Return whether a value is a number that floating point can hold."""
    return _fits(value, Number)


def _odd_annotation(source: Record) -> Annotation:
    """Return a record that is not of the usual form.

    NaN, None or UNSET stands for a box, a category or a segmentation of another type. Fields that
    nothing depends on may hold anything.
    """
    box, category, segmentation, area = (
        source.get(name) for name in ("bbox", "category_id", "segmentation", "area")
    )
    fields: dict[str, Any] = {
        "id": source["id"],
        "image_id": source["image_id"],
        "category_id": category if _fits(category, int) else None,
        "bbox": box if _fits(box, Box) else (np.nan,) * 4,
        "segmentation": msgspec.UNSET,
        "iscrowd": int(bool(source.get("iscrowd"))),
        "area": area if _fits(area, Number) else None,
    }
    with contextlib.suppress(*NOT_DECODED):
        fields["segmentation"] = msgspec.convert(segmentation or None, Segmentation)
    return Annotation(**fields)


def _duplicate(path: Path, key: str, number: Id) -> Finding:
    said = f"id {shown(number)} occurs twice"
    return Finding(
        "error", str(path), key, number, value=shown(number), expected="an id of its own", said=said
    )


def _not_drawable(segmentations: list[Any]) -> Array:
    """Return which have a polygon of fewer than three points or odd length."""
    polygons = [each if isinstance(each, list) else [] for each in segmentations]
    lengths = np.array(list(map(len, itertools.chain.from_iterable(polygons))), np.int64)
    owners = np.repeat(np.arange(len(polygons)), list(map(len, polygons)))
    bad = owners[(lengths < 6) | (lengths % 2 == 1)]
    return np.bincount(bad, minlength=len(polygons)) > 0


def _count_corners(boxes: Array, sizes: Array) -> Array:
    """Count boxes [n, 4], those that reach far out, and those that fit if sides were corners."""
    near, sides = boxes[:, :2], boxes[:, 2:]
    with np.errstate(over="ignore"):
        overflowing = (near + sides > 1.02 * sizes + 1).any(axis=1)
    fitting = ((near >= -1) & (sides > near) & (sides <= sizes + 1)).all(axis=1)
    return np.array([len(boxes), overflowing.sum(), fitting.sum()])


def _indices(known: dict[Any, int], values: list[Any]) -> Array:
    return np.array([known.get(each, -1) for each in values], np.int64)


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except NOT_DECODED:
        return False
    return True


def _described(kind: Any) -> str:
    described = [each.description for each in getattr(kind, "__metadata__", ())]
    return described[0] if described else getattr(kind, "__name__", str(kind))


def _joined(raws: Sequence[msgspec.Raw]) -> bytes:
    return b"[" + b",".join(raws) + b"]"


def _loaded(raw: msgspec.Raw) -> Any:
    """Return a record; the mark in front of NaN and infinity was put there by the file's reader."""
    return json.loads(re.sub(rb'"\\u0000(-?\w+)"', rb"\1", bytes(raw)))
