"""Records of COCO files: types of their fields, decoding and its faults.

Records come as raw JSON. Sound ones are decoded in chunks by the types below; where that fails,
numbers may be written as text and whole numbers as 1.0; where that fails, too, records are decoded
one by one, and their faults are reported.
"""

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
import numpy as np
from faster_coco_eval.core import mask as coco_mask

from botvision.datasets.annotation_files import name_in_url
from botvision.datasets.check.findings import Finding, Report, raise_errors, shown
from botvision.datasets.coco.outlines import nested
from botvision.datasets.coco.store import Record

UNKNOWN_IMAGE = "image_id without an image"
NO_AREA = "box without area inside the image"
NOT_DRAWABLE = "polygon of fewer than 3 points or odd length"

_ROUNDING = 0.1  # pixels that a box may reach out of its image without being called clipped
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
_LENIENT = msgspec.json.Decoder(list[Annotation], strict=False)


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
        decoder: Any = msgspec.json.Decoder(list[kind], strict=False)  # type: ignore[valid-type]
        try:
            decoded: list[Any] = decoder.decode(_joined(records))
        except NOT_DECODED:
            decoded = [
                self._decoded(path, f"{key}[{number}]", raw, kind, report)
                for number, raw in enumerate(records)
            ]
        for record in decoded:
            if record is not None and record.id in seen:
                report(duplicate_id(path, key, record.id))
            elif record is not None:
                seen.add(record.id)
                self.sound.append(record)

    def _decoded(
        self, path: Path, where: str, raw: msgspec.Raw, kind: type[Any], report: Report
    ) -> Any:
        source = read_record(path, where, raw, kind, report)
        if source is not None:
            return msgspec.convert(source, kind, strict=False)
        with contextlib.suppress(*NOT_DECODED, TypeError, KeyError):
            self.refused.add(loaded(raw)["id"])
        return None


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
        source = loaded(raw)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits
        report(Finding("error", str(path), where, said=f"cannot be read ({error})"))
        return None
    if kind is Image and isinstance(source, dict) and isinstance(source.get("coco_url"), str):
        source.setdefault("file_name", name_in_url(source["coco_url"]))  # LVIS has no names
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
    try:
        msgspec.convert(value, Number)
    except NOT_DECODED:
        return False
    return True


def decode_annotations(
    path: Path, start: int, raws: list[msgspec.Raw], report: Report
) -> tuple[list[msgspec.Raw], list[Annotation]]:
    """Return annotations and their sources, without those that lack a field.

    Args:
        path: Annotation file, for messages.
        start: Index of the first record in its list.
        raws: Raw JSON of records.
        report: Receives every finding.
    """
    for decoder in (_ANNOTATIONS, _LENIENT):
        with contextlib.suppress(*NOT_DECODED):
            return raws, decoder.decode(_joined(raws))
    if len(raws) > 1:
        middle = len(raws) // 2
        sources, records = decode_annotations(path, start, raws[:middle], report)
        more = decode_annotations(path, start + middle, raws[middle:], report)
        return sources + more[0], records + more[1]
    source = read_record(path, f"annotations[{start}]", raws[0], _References, report)
    return ([], []) if source is None else (raws, [_odd_annotation(source)])


def as_number(number: Id) -> int | None:
    """Return the number that an id stands for, 7 for 7, "7" and "007"; None for other text."""
    if isinstance(number, int):
        return number
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 20 else None


def _odd_annotation(source: Record) -> Annotation:
    """Return a record that is not of the usual form.

    NaN, None or UNSET stands for a box, a category or a segmentation of another type. Fields that
    nothing depends on may hold anything.
    """
    crowd = source.get("iscrowd")
    if isinstance(crowd, str):
        crowd = crowd.strip().lower() not in ("", "0", "false", "no")
    return Annotation(
        id=_converted(source["id"], Id, None),
        image_id=_converted(source["image_id"], Id, None),
        category_id=_converted(source["category_id"], int, None),
        bbox=_converted(source["bbox"], Box, (np.nan,) * 4),
        segmentation=_converted(
            nested(source.get("segmentation")) or None, Segmentation, msgspec.UNSET
        ),
        iscrowd=int(bool(crowd)),
        area=_converted(source.get("area"), Number, None),
    )


def _converted(value: Any, kind: Any, otherwise: Any) -> Any:
    """Return a value as it is decoded leniently, or another if it is of another type."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except NOT_DECODED:
        return otherwise


def duplicate_id(path: Path, key: str, number: Id) -> Finding:
    """Return an error about an id that two records of a list have."""
    said = f"id {shown(number)} occurs twice"
    return Finding(
        "error", str(path), key, number, value=shown(number), expected="an id of its own", said=said
    )


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, strict=False)
    except NOT_DECODED:
        return False
    return True


def _described(kind: Any) -> str:
    described = [each.description for each in getattr(kind, "__metadata__", ())]
    return described[0] if described else getattr(kind, "__name__", str(kind))


def _joined(raws: Sequence[msgspec.Raw]) -> bytes:
    return b"[" + b",".join(raws) + b"]"


def loaded(raw: msgspec.Raw) -> Any:
    """Return a record; the mark in front of NaN and infinity was put there by the file's reader."""
    return json.loads(re.sub(rb'"\\u0000(-?\w+)"', rb"\1", bytes(raw)))
