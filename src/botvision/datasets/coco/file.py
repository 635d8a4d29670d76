"""Reading COCO instances files of any size."""

import codecs
import contextlib
import gc
import itertools
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from botvision.datasets.check.findings import Finding, Report, raise_errors, shown
from botvision.datasets.coco.annotation_rules import AnnotationChecks, Usable
from botvision.datasets.coco.cache import cached
from botvision.datasets.coco.records import NOT_DECODED, Decoded, Image, loaded
from botvision.datasets.coco.store import Array, Category, CocoAnnotations, InstanceTable, Tally
from botvision.texts import Texts, starts

_CHUNK = 2**20  # bytes that are decoded at once
NAMED_TWICE = "images whose file another image names as well"
_OTHER_KINDS = {
    "segments_info": "panoptic segments",
    "caption": "captions",
    "question_id": "questions",
}


class _File(msgspec.Struct):
    images: list[msgspec.Raw]
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


def read_annotations(path: Path) -> CocoAnnotations:
    """Read and check a COCO instances file.

    Annotations that cannot be trained on but do no harm (boxes without area, unknown images,
    polygons of fewer than three points) are left out and counted; whatever shows that the file is
    not what it should be is an error. The content of a large file is kept in the cache folder, see
    ``cache.cached``, and opened from there the next time.

    Raises:
        BotvisionError: Naming the file, the record's id, the field and the value.
    """
    return CocoAnnotations(path, cached(path, lambda: read_arrays(path)))


def read_arrays(path: Path, report: Report = raise_errors) -> dict[str, Array]:
    """Read and check a COCO instances file, without the cache.

    Args:
        path: Annotation file.
        report: Receives every finding. Unless it raises, the arrays hold what is sound.

    Returns:
        Arrays for ``CocoAnnotations``.

    Raises:
        BotvisionError: If ``report`` raises it.
    """
    with _without_garbage_collection():
        content = _read_lists(path, report)
        if said := _other_kind(content):
            report(Finding("error", str(path), field="annotations", said=said))
            content.annotations.clear()
        images = Decoded(path, "images", content.images, Image, report)
        categories = Decoded(path, "categories", content.categories, Category, report)
        checks = AnnotationChecks(path, images, categories, report)
        usable = checks.usable(content.annotations)
        del content
        for finding in _images_named_twice(path, images.sound):
            checks.tally.noted[NAMED_TWICE] += 1
            report(finding)
        return _pack(images.sound, checks.categories, usable, checks.tally)


def _other_kind(content: _File) -> str:
    """Return what is said of a COCO file that holds no instances; "" if it does."""
    if not content.annotations:
        return ""
    with contextlib.suppress(*NOT_DECODED):
        first = loaded(content.annotations[0])
        for field, kind in _OTHER_KINDS.items():
            if isinstance(first, dict) and field in first and "bbox" not in first:
                return (
                    f"a file of {kind}: expected boxes and outlines of instances; use "
                    "instances_*.json"
                )
    return ""


def _images_named_twice(path: Path, images: Sequence[Image]) -> Iterator[Finding]:
    """Yield a finding for each image file that more than one record names."""
    first: dict[str, Image] = {}
    for each in images:
        other = first.setdefault(posixpath.normpath(each.file_name.replace("\\", "/")), each)
        if other is not each:
            said = (
                f"{shown(each.file_name)} is named by images {other.id} and {each.id}, each with "
                "annotations of its own; put them into one"
            )
            yield Finding("counted", str(path), f"image {each.id}", each.id, "file_name", said=said)


def read_json(path: Path, report: Report = raise_errors) -> dict[str, Any]:
    """Return the object of a JSON file, or an empty one after reporting that there is none."""
    said = ""
    content: Any = None
    try:
        content = json.loads(utf8_of(path.read_bytes()).decode())
    except json.JSONDecodeError as error:
        said = f"not JSON at offset {error.pos}: {error.msg}"
    except UnicodeDecodeError as error:
        said = (
            f"expected UTF-8 text, got another encoding ({error.reason} at byte {error.start}); "
            "convert it, for example with: iconv -f gb18030 -t utf-8"
        )
    except (OSError, ValueError, RecursionError) as error:  # also numbers of thousands of digits
        said = f"cannot be read ({error})"
    if isinstance(content, dict):
        return content
    value = "" if said else type(content).__name__
    report(Finding("error", str(path), value=value, expected="a JSON object", said=said))
    return {}


def record_list(
    path: Path, content: dict[str, Any], key: str, report: Report = raise_errors
) -> list[Any]:
    """Return a list of the file, or an empty one after reporting that there is none."""
    records = content.get(key)
    if isinstance(records, list):
        return records
    got = type(records).__name__
    report(Finding("error", str(path), field=key, value=got, expected="a list"))
    return []


def _read_lists(path: Path, report: Report) -> _File:
    """Return the records of the three lists as they are in the file."""
    with contextlib.suppress(*NOT_DECODED, OSError):
        text = utf8_of(path.read_bytes())
        _check_utf8(text)
        try:
            return msgspec.json.decode(text, type=_File)
        except msgspec.DecodeError:
            return msgspec.json.decode(_mark_not_finite(text), type=_File)
    # Python's parser says where a file that is cut off ends, and takes forms that are rare.
    content = read_json(path, report)
    keys = _File.__struct_fields__ if content else ()
    lists = [record_list(path, content, key, report) for key in keys]
    if not all(isinstance(content.get(key), list) for key in _File.__struct_fields__):
        return _File([], [], [])
    return _File(*([msgspec.Raw(json.dumps(each).encode()) for each in own] for own in lists))


def _check_utf8(text: bytes) -> None:
    """Raise ``UnicodeDecodeError`` for another encoding, which msgspec notices record by record."""
    if text.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _CHUNK):
        decoder.decode(text[start : start + _CHUNK], final=start + _CHUNK >= len(text))


def utf8_of(text: bytes) -> bytes:
    """Return text in UTF-8 without a byte order mark, which programs of Windows write."""
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return text.decode("utf-16").encode()
    return text.removeprefix(codecs.BOM_UTF8)


def _mark_not_finite(text: bytes) -> bytes:
    """Return JSON with NaN and infinity, which only Python writes, as strings with a mark.

    So they spoil the records that they are in, not the file.
    """
    for name in (b"NaN", b"-Infinity", b"Infinity"):
        if name in text:
            token = rb"%b(?<=[\[:,\s]%b)(?=[\],}\s])" % (name, name)
            text = re.sub(token, rb'"\\u0000%b"' % name, text)
    return text


def _pack(
    images: Sequence[Image], categories: Sequence[Category], usable: Sequence[Usable], tally: Tally
) -> dict[str, Array]:
    """Return the read-only arrays of checked records.

    Args:
        images: Images in file order.
        categories: Categories sorted by id.
        usable: Usable annotations in file order, in chunks.
        tally: Counts of the file's annotations.
    """
    columns = {
        name: np.concatenate([getattr(chunk.table, name) for chunk in usable])
        for name in InstanceTable.__dataclass_fields__
    }
    image_index = columns.pop("image_index")
    order = np.argsort(image_index, kind="stable")
    instance_starts = starts(np.bincount(image_index, minlength=len(images)))
    ids, texts = (
        [values[row] for row in order.tolist()]
        for values in (
            [each for chunk in usable for each in chunk.ids],
            [each for chunk in usable for each in chunk.segmentations],
        )
    )
    description = {"categories": [vars(each) for each in categories], **vars(tally)}
    bounds = itertools.pairwise(instance_starts.tolist())
    names = [
        json.dumps([image.id, image.file_name, ids[first:end]]).encode()
        for image, (first, end) in zip(images, bounds, strict=True)
    ]
    sizes = [(each.width, each.height) for each in images]
    arrays: dict[str, Array] = {
        "description": np.frombuffer(json.dumps(description).encode(), np.uint8),
        "image_sizes": np.array(sizes, np.float64).reshape(-1, 2),
        **Texts.pack("images", names),
        **Texts.pack("segmentations", texts),
        "instance_starts": instance_starts,
        **{name: column[order] for name, column in columns.items()},
    }
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """No object here refers to itself, and looking for such ones takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
