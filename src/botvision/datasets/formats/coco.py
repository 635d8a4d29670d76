"""COCO folders of any layout."""

import contextlib
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from botvision.datasets.check.findings import Finding
from botvision.datasets.coco.file import read_arrays, read_json, record_list
from botvision.datasets.coco.records import UNKNOWN_IMAGE, Id, field_fault
from botvision.datasets.coco.store import Category
from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.formats.faults import SeveralFaults
from botvision.datasets.formats.labeled_sets import LabeledSet, Progress
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split
from botvision.errors import BotvisionError

_NUMBERS = ("id", "image_id", "category_id")


class _Image(TypedDict):
    id: Id
    file_name: str


class _Annotation(TypedDict):
    image_id: Id
    category_id: int
    bbox: list[Any]


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
    return result


def _read_split(result: LabeledSet, split: CocoSplit, progress: Progress | None) -> list[CocoImage]:
    path = split.annotations
    content = read_json(path)
    images = _records(path, content, "images", _Image)
    ids = _match_classes(result, path, _records(path, content, "categories", Category))
    annotations = _records(path, content, "annotations", _Annotation)
    faults = _annotation_faults(path, annotations, ids)
    found: dict[Any, CocoImage] = {}
    known: set[Any] = set()
    for number, image in enumerate(images, start=1):
        if image["id"] in known:
            raise BotvisionError(f"{path}: images: id {image['id']!r} occurs twice")
        known.add(image["id"])
        with result.collecting():
            opened = _open_image(result, split, image)
            if own := faults.get(image["id"]):
                raise SeveralFaults(str(path), own)
            found[image["id"]] = opened
        if progress:
            progress(number, len(images))
    for record in annotations:
        if record["image_id"] not in known:
            result.skipped[UNKNOWN_IMAGE] += 1
        elif owner := found.get(record["image_id"]):
            kept = {key: value for key, value in record.items() if key not in ("id", "image_id")}
            owner.annotations.append(kept | {"category_id": ids[record["category_id"]]})
    return list(found.values())


def _open_image(result: LabeledSet, split: CocoSplit, image: dict[str, Any]) -> CocoImage:
    where = f"{split.annotations}: image {image['id']}"
    file = result.find(image["file_name"], split.images, f"{where}: file_name")
    width, height = result.size(file, f"{where}: file_name")
    written = tuple(image.get(side) for side in ("width", "height"))
    if None not in written and written != (width, height):
        raise BotvisionError(
            f"{where}: width x height: expected {width} x {height} as {file.name} is, got "
            f"{written[0]} x {written[1]}"
        )
    return CocoImage(file, width, height, [], image["id"])


def _match_classes(
    result: LabeledSet, path: Path, categories: list[dict[str, Any]]
) -> dict[int, int]:
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
    elif any(old != number for old, number in ids.items()):
        result.notes.append(f"{path}: classes are numbered as in the first split, by their names")
    return ids


def _annotation_faults(
    path: Path, annotations: list[dict[str, Any]], ids: dict[int, int]
) -> dict[Any, list[str]]:
    """Return what training would refuse of the annotations, by image id.

    Raises:
        BotvisionError: If a fault cannot be told an image.
    """
    faults: dict[Any, list[str]] = {}
    for number, record in enumerate(annotations):
        if record["category_id"] not in ids:
            faults.setdefault(record["image_id"], []).append(
                f"{path}: annotation {record.get('id', number)}: category_id: expected one of the "
                f"file's categories, got {record['category_id']}"
            )
    if faults or not all("id" in record for record in annotations):
        return faults  # the rules of training need both
    owners = {record["id"]: record["image_id"] for record in annotations}
    findings: list[Finding] = []
    with contextlib.suppress(BotvisionError):
        read_arrays(path, findings.append)
    others = []
    for finding in findings:
        if finding.severity != "error" or not finding.where.startswith("annotation"):
            continue  # of images and categories, the conversion needs less
        if finding.id in owners and finding.where != "annotations":
            faults.setdefault(owners[finding.id], []).append(finding.message)
        elif finding.field == "bbox":
            others.append(finding.message)
    if others:
        raise BotvisionError(others[0])
    return faults


def _records(path: Path, content: dict[str, Any], key: str, kind: Any) -> list[dict[str, Any]]:
    records = record_list(path, content, key)
    for record in records:
        for name in _NUMBERS if isinstance(record, dict) else ():
            # pandas writes whole numbers so where one is missing.
            if isinstance(number := record.get(name), float) and number.is_integer():
                record[name] = int(number)
    with contextlib.suppress(msgspec.ValidationError):
        msgspec.convert(records, list[kind])
        return records
    found = [field_fault(path, f"{key}[{n}]", record, kind) for n, record in enumerate(records)]
    messages = [fault.message for fault in found if fault is not None]
    if len(messages) == 1:
        raise BotvisionError(messages[0])
    if messages:
        raise SeveralFaults(str(path), messages)
    return records
