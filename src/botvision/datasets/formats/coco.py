"""COCO folders of any layout."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from botvision.datasets.check.findings import Finding
from botvision.datasets.coco.file import read_json, record_list
from botvision.datasets.coco.records import (
    UNKNOWN_IMAGE,
    AnnotationChecks,
    Decoded,
    Id,
    Image,
    field_fault,
)
from botvision.datasets.coco.store import Category
from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.formats.faults import Faults, SeveralFaults
from botvision.datasets.formats.labeled_sets import LabeledSet, Progress
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split
from botvision.errors import BotvisionError

Record = dict[str, Any]
_IDS = ("id", "image_id", "category_id")


class _Image(TypedDict):
    id: Id
    file_name: str


class _Annotation(TypedDict):
    image_id: Id


def read(folder: Path, *, progress: Progress | None = None) -> LabeledSet:
    """Read a COCO folder; ids of images and all other fields stay.

    Annotations are held to the rules of training. Classes are matched by name: where the splits
    number them differently, the ids are those of the first split.

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
    annotations = _annotations(path, content)
    ids = _match_categories(result, path, categories)
    found: dict[Id, CocoImage] = {}
    for number, image in enumerate(images, start=1):
        with result.collecting():
            found[image["id"]] = _image(result, split, image)
        if progress:
            progress(number, len(images))
    for image_id, faults in _faults(path, found, categories, annotations).items():
        with result.collecting():
            del found[image_id]
            raise SeveralFaults(str(path), faults)
    known = {image["id"] for image in images}
    for record in annotations:
        owner = found.get(record["image_id"])
        if owner is not None:
            kept = {key: value for key, value in record.items() if key not in ("id", "image_id")}
            owner.annotations.append(kept | {"category_id": ids[record["category_id"]]})
        elif record["image_id"] not in known:
            result.skipped[UNKNOWN_IMAGE] += 1
    return list(found.values())


def _image(result: LabeledSet, split: CocoSplit, image: Record) -> CocoImage:
    path = split.annotations
    where = f"{path}: image {image['id']}: file_name"
    file = result.find(image["file_name"], split.images, where)
    width, height = result.size(file, where)
    given = [image.get(side) or real for side, real in (("width", width), ("height", height))]
    if given != [width, height]:
        raise BotvisionError(
            f"{path}: image {image['id']}: width x height: expected {width} x {height} as "
            f"{file.name} is, got {' x '.join(map(str, given))}"
        )
    return CocoImage(file, width, height, [], image["id"])


def _match_categories(result: LabeledSet, path: Path, categories: list[Record]) -> dict[int, int]:
    """Return the data set's id of each category of a file, and add those that are new."""
    by_name = {each["name"]: each["id"] for each in result.categories}
    taken = set(by_name.values())
    ids, new = {}, []
    for each in categories:
        number = by_name.get(each["name"])
        if number is None:
            number = each["id"] if each["id"] not in taken else max(taken) + 1
            taken.add(number)
            new.append(each | {"id": number})
        ids[each["id"]] = number
    if result.categories and new:
        names = ", ".join(each["name"] for each in new)
        result.notes.append(f"{path}: classes that the splits before it do not have: {names}")
    result.categories += new
    if any(number != own for own, number in ids.items()):
        result.notes.append(
            f"{path}: its ids of categories differ from those of the splits before it: classes are "
            "matched by name"
        )
    return ids


def _faults(
    path: Path,
    images: dict[Id, CocoImage],
    categories: list[Record],
    annotations: list[Record],
) -> dict[Id, list[str]]:
    """Return the faults of each image's annotations, by the rules of training.

    Raises:
        BotvisionError: If the annotations are faulty as a whole.
    """
    faults: dict[Id, list[str]] = defaultdict(list)
    counts = Counter(each.get("id") for each in annotations)
    owners, numbered = {}, []
    for number, record in enumerate(annotations):
        if record["image_id"] in images:
            # Ids are given anew at the end, so that one which is missing does no harm.
            own = record.get("id")
            sound = own is not None and counts[own] == 1
            own = own if sound else f"annotations[{number}]"
            owners[own] = record["image_id"]
            numbered.append(record | {"id": own})

    def report(finding: Finding) -> None:
        if finding.severity != "error":
            return
        if finding.id not in owners:
            raise BotvisionError(finding.message)
        faults[owners[finding.id]].append(finding.message)

    sizes = [
        {"id": number, "file_name": image.path.name, "width": image.width, "height": image.height}
        for number, image in images.items()
    ]
    checks = AnnotationChecks(
        path,
        Decoded(path, "images", _raws(sizes), Image),
        Decoded(path, "categories", _raws(categories), Category),
        report,
    )
    checks.usable(_raws(numbered))
    return faults


def _raws(records: list[Record]) -> list[msgspec.Raw]:
    # Python's encoder, since records may hold NaN.
    return [msgspec.Raw(json.dumps(each).encode()) for each in records]


def _records(path: Path, content: Record, key: str, kind: Any) -> list[Record]:
    """Return the sound records of a list whose ids are unique; else raise all faults."""
    faults = Faults()
    found: list[Record] = []
    for number, record in enumerate(record_list(path, content, key)):
        whole = _with_whole_ids(record)
        if fault := field_fault(path, f"{key}[{number}]", whole, kind):
            faults.messages.append(fault.message)
        else:
            found.append(whole)
    counts = Counter(each["id"] for each in found)
    faults.messages += [
        f"{path}: {key}: id {each!r} occurs twice" for each, count in counts.items() if count > 1
    ]
    faults.raise_collected(str(path))
    return found


def _annotations(path: Path, content: Record) -> list[Record]:
    """Return the annotations; that they name an image is all that is checked."""
    faults = Faults()
    found: list[Record] = []
    for number, record in enumerate(record_list(path, content, "annotations")):
        if isinstance(record, dict) and "segments_info" in record:
            raise BotvisionError(
                f"{path}: expected instances, got a panoptic file; use its instances_*.json"
            )
        whole = _with_whole_ids(record)
        if fault := field_fault(path, f"annotations[{number}]", whole, _Annotation):
            faults.messages.append(fault.message)
        else:
            found.append(whole)
    faults.raise_collected(str(path))
    return found


def _with_whole_ids(record: Any) -> Any:
    """Return a record whose ids are integers where they are written as 1.0, as pandas does."""
    if not isinstance(record, dict):
        return record
    whole = {
        key: int(record[key])
        for key in _IDS
        if isinstance(record.get(key), float) and record[key].is_integer()
    }
    return record | whole if whole else record
