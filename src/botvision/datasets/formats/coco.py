"""COCO folders of any layout."""

import contextlib
import functools
import json
import os
from collections import Counter, defaultdict
from pathlib import Path, PureWindowsPath
from typing import Any, TypedDict
from urllib.parse import unquote

import msgspec

from botvision.datasets.annotation_files import name_in_url
from botvision.datasets.check.findings import Finding
from botvision.datasets.coco.annotation_rules import AnnotationChecks
from botvision.datasets.coco.file import read_json, record_list
from botvision.datasets.coco.records import (
    UNKNOWN_IMAGE,
    Decoded,
    Id,
    Image,
    as_number,
    field_fault,
)
from botvision.datasets.coco.store import Category
from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.formats.faults import SeveralFaultsError
from botvision.datasets.formats.labeled_sets import LabeledSet, Progress
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split, unread_coco_files
from botvision.errors import BotvisionError
from botvision.images.find import image_files

Record = dict[str, Any]
_NUMBERS = ("id", "image_id", "category_id")


class _Image(TypedDict):
    id: Id
    file_name: str


class _Annotation(TypedDict):
    image_id: Id


def read(folder: Path, *, progress: Progress | None = None) -> LabeledSet:
    """Read a COCO folder; ids of images and all other fields stay.

    A class is its name: where splits number the classes differently, the ids of the first split
    are taken, and classes that only others have come after them.

    Args:
        folder: COCO folder; nothing in it is changed.
        progress: Called with the number of images of a split that are read and the total.

    Returns:
        The data set, with the faults of images and their annotations.

    Raises:
        BotvisionError: If a file is not COCO's; naming all its faulty records.
    """
    result = LabeledSet(folder)
    # Where there is none, the error says what was looked for.
    splits = coco_splits(folder) or {"train": find_coco_split(folder, "train")}
    for split, where in splits.items():
        if where.name not in ("", split):
            result.notes.append(f"{where.annotations}: {where.name} is taken as {split}")
        result.splits[split] = _read_split(result, where, progress)
    result.note_files("other COCO files", unread_coco_files(folder, splits.values()))
    _note_other_images(result)
    return result


def _note_other_images(result: LabeledSet) -> None:
    """Note the images that are in no annotation file."""
    if result.faulty_images:
        return  # which of the files are theirs is not known
    images = [image.path for own in result.splits.values() for image in own]
    known = {os.path.normpath(path) for path in images}
    others = [p for p in image_files(result.root) if os.path.normpath(p) not in known]
    result.note_files("images in no annotation file", others)


def _read_split(result: LabeledSet, split: CocoSplit, progress: Progress | None) -> list[CocoImage]:
    path = split.annotations
    content = read_json(path)
    images = _records(path, content, "images", _Image)
    ids = _match_classes(result, path, _records(path, content, "categories", Category))
    annotations = _records(path, content, "annotations", _Annotation)
    found: dict[Any, CocoImage] = {}
    known: set[Any] = set()
    moved = _MovedImages(result)
    for number, image in enumerate(images, start=1):
        if image["id"] in known:
            raise BotvisionError(f"{path}: images: id {image['id']!r} occurs twice")
        known.add(image["id"])
        with result.collecting():
            found[image["id"]] = _open_image(result, split, image, moved)
        if progress:
            progress(number, len(images))
    moved.add_note(path)
    _match_image_ids(annotations, known)
    for image_id, faults in _annotation_faults(path, found, list(ids), annotations).items():
        del found[image_id]
        with result.collecting():
            raise SeveralFaultsError(str(path), faults)
    for record in annotations:
        if record["image_id"] not in known:
            result.skipped[UNKNOWN_IMAGE] += 1
        elif owner := found.get(record["image_id"]):
            kept = {key: value for key, value in record.items() if key not in ("id", "image_id")}
            owner.annotations.append(kept | {"category_id": ids[record["category_id"]]})
    return list(found.values())


def _match_image_ids(annotations: list[Record], known: set[Any]) -> None:
    """Replace ids of images that are numbers in one list and text in the other."""
    numbers = Counter(map(as_number, known))
    by_number = {as_number(each): each for each in known if numbers[as_number(each)] == 1}
    by_number.pop(None, None)  # text that is no number
    for record in annotations:
        if record["image_id"] not in known:
            number = as_number(record["image_id"])
            record["image_id"] = by_number.get(number, record["image_id"])


class _MovedImages:
    """Images that are not where their paths say, but whose names are unique in the data set.

    Label Studio writes addresses and paths of its server, notebooks paths from where they ran.
    """

    def __init__(self, result: LabeledSet) -> None:
        self._result = result
        self._count = 0

    @functools.cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in image_files(self._result.root):
            found.setdefault(path.name, []).append(path)
        return found

    def find(self, written: str) -> Path | None:
        """Return the one image of the name in a path or address."""
        name = PureWindowsPath(written).name
        for each in (name, unquote(name)):
            if len(found := self._by_name.get(each, [])) == 1:
                self._count += 1
                return found[0]
        return None

    def add_note(self, path: Path) -> None:
        """Note how many images of an annotation file were found so."""
        if self._count:
            self._result.notes.append(
                f"{path}: file_name: {self._count:,} images are not where it says, and are found "
                "by their names"
            )


def _open_image(
    result: LabeledSet, split: CocoSplit, image: Record, moved: _MovedImages
) -> CocoImage:
    where = f"{split.annotations}: image {image['id']}"
    try:
        file = result.find(image["file_name"], split.images, f"{where}: file_name")
    except BotvisionError:
        by_name = moved.find(image["file_name"])
        if by_name is None:
            raise
        file = by_name
    width, height = result.size(file, f"{where}: file_name")
    written = tuple(image.get(side) for side in ("width", "height"))
    # Some tools write 0 or nothing.
    if all(written) and written != (width, height):
        raise BotvisionError(
            f"{where}: width x height: expected {width} x {height} as {file.name} is, got "
            f"{written[0]} x {written[1]}"
        )
    return CocoImage(file, width, height, [], image["id"])


def _match_classes(result: LabeledSet, path: Path, categories: list[Record]) -> dict[int, int]:
    """Return the id in the data set of each of a file's category ids, and add new classes."""
    if not result.categories:
        result.categories = categories
        return {category["id"]: category["id"] for category in categories}
    known = {(each["id"], each["name"]) for each in result.categories}
    first: dict[str, int] = {}
    for each in result.categories:
        first.setdefault(each["name"], each["id"])
    ids = {}
    new = []
    for category in categories:
        number, name = category["id"], category["name"]
        if (number, name) not in known and name not in first:
            first[name] = max(each["id"] for each in result.categories) + 1
            result.categories = [*result.categories, {**category, "id": first[name]}]
            new.append(name)
        ids[number] = number if (number, name) in known else first[name]
    if new:
        result.notes.append(
            f"{path}: {len(new)} classes are not in the other splits: {', '.join(new)[:200]}"
        )
    if any(old != number for old, number in ids.items()):
        result.notes.append(f"{path}: classes are numbered as in the first split, by their names")
    return ids


def _annotation_faults(
    path: Path, images: dict[Any, CocoImage], categories: list[int], annotations: list[Record]
) -> dict[Any, list[str]]:
    """Return what training would refuse of the annotations, by image id.

    Raises:
        BotvisionError: If the annotations are faulty as a whole.
    """
    faults: dict[Any, list[str]] = defaultdict(list)
    counts = Counter(record.get("id") for record in annotations)
    owners = {}
    checked = []
    for number, record in enumerate(annotations):
        if record["image_id"] in images:
            # Ids are given anew at the end, so that one which is missing or repeated does no harm.
            own = record.get("id")
            own = f"number {number}" if own is None or counts[own] > 1 else own
            owners[own] = record["image_id"]
            checked.append({**record, "id": own})

    def report(finding: Finding) -> None:
        if finding.severity == "error" and finding.id not in owners:
            raise BotvisionError(finding.message)
        if finding.severity == "error":
            faults[owners[finding.id]].append(finding.message)

    sizes = [
        {"id": number, "file_name": image.path.name, "width": image.width, "height": image.height}
        for number, image in images.items()
    ]
    classes = [{"id": number, "name": str(number)} for number in categories]
    checks = AnnotationChecks(
        path,
        Decoded(path, "images", _raw(sizes), Image),
        Decoded(path, "categories", _raw(classes), Category),
        report,
    )
    checks.usable(_raw(checked))
    return faults


def _raw(records: list[Record]) -> list[msgspec.Raw]:
    # Python's encoder, since records may hold NaN.
    return [msgspec.Raw(json.dumps(record).encode()) for record in records]


def _records(path: Path, content: Record, key: str, kind: Any) -> list[Record]:
    records = record_list(path, content, key)
    if any(isinstance(record, dict) and "segments_info" in record for record in records):
        raise BotvisionError(
            f"{path}: expected instances, got a panoptic file; use its instances_*.json"
        )
    for record in records:
        if kind is _Image and isinstance(record, dict) and isinstance(record.get("coco_url"), str):
            record.setdefault("file_name", name_in_url(record["coco_url"]))  # LVIS has no names
        for name in _NUMBERS if isinstance(record, dict) else ():
            number = record.get(name)
            # pandas writes whole numbers so where one is missing.
            if isinstance(number, float) and number.is_integer():
                record[name] = int(number)
            elif isinstance(number, str) and (name == "category_id" or kind is Category):
                whole = as_number(number)
                record[name] = number if whole is None else whole
    with contextlib.suppress(msgspec.ValidationError):
        msgspec.convert(records, list[kind])
        return records
    found = [field_fault(path, f"{key}[{n}]", record, kind) for n, record in enumerate(records)]
    messages = [fault.message for fault in found if fault is not None]
    if len(messages) == 1:
        raise BotvisionError(messages[0])
    if messages:
        raise SeveralFaultsError(str(path), messages)
    return records
