"""Reading COCO folders of any layout, to write them in ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.formats.labeled_sets import LabeledSet, Progress, read_json_object
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split
from botvision.errors import BotvisionError


def read_coco_folder(folder: Path, *, progress: Progress) -> LabeledSet:
    """Read a COCO folder; ids of images and categories and all else in the records stay.

    Only what the conversion touches is checked here. What the annotations say is checked when
    they are trained on.

    Args:
        folder: The user's folder; nothing in it is changed.
        progress: Called with the images read of a split and their number.

    Raises:
        BotvisionError: Naming the file and the record.
    """
    result = LabeledSet(folder)
    # Where there is none, the error says what was looked for.
    splits = coco_splits(folder) or {"train": find_coco_split(folder, "train")}
    for split, place in splits.items():
        if place.name not in ("", split):
            result.notes.append(f"{place.annotations}: {place.name} is taken as {split}")
        result.splits[split] = _read_split(result, place, progress)
    return result


def _read_split(result: LabeledSet, place: CocoSplit, progress: Progress) -> list[CocoImage]:
    path = place.annotations
    content = read_json_object(path)
    images = _records(path, content, "images", {"id": int | str, "file_name": str})
    categories = _records(path, content, "categories", {"id": int, "name": str})
    if not result.categories:
        result.categories = categories
    elif _named(categories) != _named(result.categories):
        raise BotvisionError(f"{path}: categories: expected those of the other splits")
    known = _named(categories)
    photos: dict[Any, CocoImage] = {}
    for number, image in enumerate(images, start=1):
        where = f"{path}: image {image['id']}: file_name"
        photo = place.images / image["file_name"]
        width, height = result.size(photo, where)
        if (image.get("width", width), image.get("height", height)) != (width, height):
            raise BotvisionError(
                f"{path}: image {image['id']}: width x height: expected {width} x {height} as "
                f"{photo.name} is, got {image.get('width')} x {image.get('height')}"
            )
        if image["id"] in photos:
            raise BotvisionError(f"{path}: images: id {image['id']!r} occurs twice")
        photos[image["id"]] = CocoImage(photo, width, height, [], image["id"])
        progress(number, len(images))
    fields = {"image_id": int | str, "category_id": int, "bbox": list}
    for record in _records(path, content, "annotations", fields):
        if record["category_id"] not in known:
            raise BotvisionError(
                f"{path}: annotation {record.get('id')}: category_id: expected one of the file's "
                f"categories, got {record['category_id']}"
            )
        owner = photos.get(record["image_id"])
        if owner is None:
            result.skipped["image_id without an image"] += 1
        else:
            owner.annotations.append(
                {key: value for key, value in record.items() if key not in ("id", "image_id")}
            )
    return list(photos.values())


def _named(categories: list[dict[str, Any]]) -> dict[int, str]:
    return {category["id"]: category["name"] for category in categories}


def _records(
    path: Path, content: dict[str, Any], key: str, fields: Mapping[str, Any]
) -> list[dict[str, Any]]:
    records = content.get(key)
    if not isinstance(records, list):
        raise BotvisionError(f"{path}: {key}: expected a list, got {type(records).__name__}")
    for number, record in enumerate(records):
        for name, kind in fields.items():
            if not isinstance(record, dict) or not isinstance(record.get(name), kind):
                raise BotvisionError(f"{path}: {key}[{number}]: {name}: missing or of a wrong type")
    return records
