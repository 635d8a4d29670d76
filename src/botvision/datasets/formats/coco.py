"""COCO folders of any layout."""

import contextlib
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from botvision.datasets.check.findings import raise_errors
from botvision.datasets.coco.file import read_json, record_list
from botvision.datasets.coco.records import UNKNOWN_IMAGE, Id, field_fault
from botvision.datasets.coco.store import Category
from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.formats.labeled_sets import LabeledSet, Progress
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split
from botvision.errors import BotvisionError


class _Image(TypedDict):
    id: Id
    file_name: str


class _Annotation(TypedDict):
    image_id: Id
    category_id: int
    bbox: list[Any]


def read(folder: Path, *, progress: Progress | None = None) -> LabeledSet:
    """Read a COCO folder; ids of images and categories and all other fields stay.

    Only the fields that the conversion uses are checked here. Boxes and segmentations are checked
    when they are trained on.

    Args:
        folder: COCO folder; nothing in it is changed.
        progress: Called with the number of images of a split that are read and the total.

    Raises:
        BotvisionError: Naming the file and the record.
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
    categories = _records(path, content, "categories", Category)
    if not result.categories:
        result.categories = categories
    elif _named(categories) != _named(result.categories):
        raise BotvisionError(f"{path}: categories: expected those of the other splits")
    known = _named(categories)
    found: dict[Any, CocoImage] = {}
    for number, image in enumerate(images, start=1):
        where = f"{path}: image {image['id']}: file_name"
        file = split.images / image["file_name"]
        width, height = result.size(file, where)
        if (image.get("width", width), image.get("height", height)) != (width, height):
            raise BotvisionError(
                f"{path}: image {image['id']}: width x height: expected {width} x {height} as "
                f"{file.name} is, got {image.get('width')} x {image.get('height')}"
            )
        if image["id"] in found:
            raise BotvisionError(f"{path}: images: id {image['id']!r} occurs twice")
        found[image["id"]] = CocoImage(file, width, height, [], image["id"])
        if progress:
            progress(number, len(images))
    for record in _records(path, content, "annotations", _Annotation):
        if record["category_id"] not in known:
            raise BotvisionError(
                f"{path}: annotation {record.get('id')}: category_id: expected one of the file's "
                f"categories, got {record['category_id']}"
            )
        owner = found.get(record["image_id"])
        if owner is None:
            result.skipped[UNKNOWN_IMAGE] += 1
        else:
            owner.annotations.append(
                {key: value for key, value in record.items() if key not in ("id", "image_id")}
            )
    return list(found.values())


def _named(categories: list[dict[str, Any]]) -> dict[int, str]:
    return {category["id"]: category["name"] for category in categories}


def _records(path: Path, content: dict[str, Any], key: str, kind: Any) -> list[dict[str, Any]]:
    records = record_list(path, content, key)
    with contextlib.suppress(msgspec.ValidationError):
        msgspec.convert(records, list[kind])
        return records
    for number, record in enumerate(records):
        if fault := field_fault(path, f"{key}[{number}]", record, kind):
            raise_errors(fault)
    return records
