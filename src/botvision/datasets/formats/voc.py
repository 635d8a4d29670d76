"""Pascal VOC folders: one XML file per image, and mask images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from botvision.datasets.coco.writing import (
    CocoImage,
    box_annotation,
    mask_annotation,
    polygon_area,
)
from botvision.datasets.formats.labeled_sets import Box, LabeledSet, Progress, read_text
from botvision.datasets.layouts import split_of, voc_files
from botvision.errors import BotvisionError
from botvision.images.decode import read_numbers
from botvision.images.find import IMAGE_SUFFIXES

_VOID = 255  # the border between objects in mask images


@dataclass(frozen=True)
class _Object:
    """``object`` element of an XML file; ``where`` names it in messages."""

    where: str
    name: str
    corners: Box
    polygons: list[list[float]]
    difficult: bool


@dataclass(frozen=True)
class _Entry:
    """XML file and its image."""

    xml: Path
    root: Element
    image: Path


def read(folder: Path, *, progress: Progress | None = None) -> LabeledSet:
    """Read a Pascal VOC folder, or XML files beside their images.

    Boxes are those of the development kit: pixels counted from 1, the last one included. Masks come
    from ``SegmentationObject/`` or from ``polygon`` elements, whose points count from 1 too.
    Difficult objects become crowds, which are ignored in training and evaluation. Classes are
    numbered from 1 by name.

    Args:
        folder: Pascal VOC folder; nothing in it is changed.
        progress: Called with the number of images read and the total.

    Raises:
        BotvisionError: Naming the file and the object.
    """
    result = LabeledSet(folder)
    files = _splits(result)
    total, done = sum(map(len, files.values())), 0
    found: dict[str, list[tuple[CocoImage, list[tuple[str, dict[str, Any]]]]]] = {}
    names: set[str] = set()
    for split, paths in files.items():
        found[split] = []
        for path in paths:
            entry = _read_entry(result, path)
            objects = [_object(path, number, each) for number, each in _objects(entry.root)]
            names.update(each.name for each in objects)
            size = result.size(entry.image, str(path))
            _check_size(entry, size)
            annotations = list(_annotations(result, entry, objects, size))
            found[split].append((CocoImage(entry.image, *size, []), annotations))
            done += 1
            if progress:
                progress(done, total)
    ids = {name: number for number, name in enumerate(sorted(names), start=1)}
    result.categories = [{"id": number, "name": name} for name, number in ids.items()]
    for split, images in found.items():
        for image, annotations in images:
            image.annotations.extend(
                {**each, "category_id": ids[name]} for name, each in annotations
            )
        result.splits[split] = [image for image, _ in images]
    return result


def _splits(result: LabeledSet) -> dict[str, list[Path]]:
    """Return the XML files of each split."""
    annotations = result.root / "Annotations"
    if not annotations.is_dir():
        splits: dict[str, list[Path]] = {}
        for path in voc_files(result.root):
            splits.setdefault(split_of(path.parent.name) or "train", []).append(path)
        return splits
    lists = {word: result.root / "ImageSets" / "Main" / f"{word}.txt" for word in _LISTS}
    found = {split: lists[word] for word, split in _LISTS.items() if lists[word].is_file()}
    if not found:
        return {"train": sorted(annotations.glob("*.xml"))}
    splits = {}
    for split, path in found.items():
        named = list(_listed(result, path, annotations))
        if split == "test" and not any(xml.is_file() for _, xml in named):
            result.notes.append(f"{path}: its images have no annotations and are left out")
            continue
        for where, xml in named:
            if not xml.is_file():
                raise BotvisionError(f"{where}: expected {xml}, got no such file")
        splits[split] = [xml for _, xml in named]
    if found.get("train") == lists["trainval"]:
        held_out = set(splits.get("val", []))
        splits["train"] = [xml for xml in splits["train"] if xml not in held_out]
    return splits


# The later one of a split wins.
_LISTS = {"trainval": "train", "train": "train", "val": "val", "test": "test"}


def _listed(result: LabeledSet, path: Path, annotations: Path) -> Iterator[tuple[str, Path]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if words := line.split():
            where = f"{path}: line {number}"
            yield where, result.inside(annotations / f"{words[0]}.xml", where)


def _read_entry(result: LabeledSet, path: Path) -> _Entry:
    result.inside(path, str(path))
    try:
        root = fromstring(path.read_bytes())
    except (ParseError, ValueError, LookupError) as error:  # declared entities among them
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise BotvisionError(f"{path}: cannot be read as XML ({reason})") from error
    if root.tag != "annotation":
        raise BotvisionError(f"{path}: expected an annotation element, got {root.tag!r}")
    images = result.root / "JPEGImages"
    if path.parent.name != "Annotations" or not images.is_dir():
        images = path.parent
    name = (root.findtext("filename") or "").strip()
    if name:
        named = result.inside(images / name, f"{path}: filename")
        if named.is_file():
            return _Entry(path, root, named)
    # Tools rename images and leave the element as it was.
    for suffix in sorted(IMAGE_SUFFIXES):
        for beside in (
            images / f"{path.stem}{suffix}",
            images / f"{path.stem}{suffix.upper()}",
        ):
            if beside.is_file():
                return _Entry(path, root, beside)
    raise BotvisionError(f"{path}: filename: expected an image in {images}, got {name!r}")


def _check_size(entry: _Entry, size: tuple[int, int]) -> None:
    written = entry.root.findtext("size/width"), entry.root.findtext("size/height")
    if None not in written and "0" not in written:
        sides = tuple(str(text).strip().removesuffix(".0") for text in written)
        if sides != tuple(map(str, size)):
            raise BotvisionError(
                f"{entry.xml}: size: expected {size[0]} x {size[1]} as {entry.image.name} is, "
                f"got {' x '.join(sides)}"
            )


def _objects(root: Element) -> Iterator[tuple[int, Element]]:
    return enumerate(root.findall("object"), start=1)


def _object(path: Path, number: int, element: Element) -> _Object:
    where = f"{path}: object {number}"
    name = (element.findtext("name") or "").strip()
    if not name:
        raise BotvisionError(f"{where}: name: expected a class, got none")
    values = {
        side: _number(f"{where}: {side}", element.findtext(f"bndbox/{side}"))
        for side in ("xmin", "ymin", "xmax", "ymax")
    }
    corners = values["xmin"] - 1, values["ymin"] - 1, values["xmax"], values["ymax"]
    polygons = [
        [
            _number(f"{where}: polygon: {point.tag}", point.text) - 1
            for point in polygon.iter()
            if point is not polygon and len(point) == 0
        ]
        for polygon in element.findall("polygon")
    ]
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise BotvisionError(
                f"{where}: polygon: expected at least 3 points, got {len(polygon)} numbers"
            )
    return _Object(where, name, corners, polygons, element.findtext("difficult") == "1")


def _number(where: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BotvisionError(f"{where}: expected a number, got {text!r}")
    return value


def _annotations(
    result: LabeledSet, entry: _Entry, objects: list[_Object], size: tuple[int, int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield class name and record of each object; category ids are filled in at the end."""
    numbers = _mask_numbers(result, entry, len(objects), size)
    for number, each in enumerate(objects, start=1):
        box = result.box(each.corners, size)
        if box is None:
            continue
        record = box_annotation(box, 0, iscrowd=int(each.difficult))
        if numbers is not None and (mask := numbers == number).any():
            drawn = mask_annotation(mask, 0)
            record |= {"segmentation": drawn["segmentation"], "area": drawn["area"]}
        elif each.polygons:
            record |= {"segmentation": each.polygons, "area": polygon_area(each.polygons)}
        yield each.name, record


def _mask_numbers(
    result: LabeledSet, entry: _Entry, objects: int, size: tuple[int, int]
) -> NDArray[np.uint8] | None:
    """Return the number of each pixel's object, from 1 in file order; None without a mask."""
    path = result.root / "SegmentationObject" / f"{entry.xml.stem}.png"
    if not path.is_file():
        return None
    numbers = read_numbers(result.inside(path, str(entry.xml)))
    if numbers.shape[::-1] != size:
        raise BotvisionError(f"{path}: expected {size[0]} x {size[1]} pixels as the image has")
    numbers[numbers == _VOID] = 0
    if numbers.max() > objects:
        raise BotvisionError(
            f"{path}: expected numbers of {entry.xml.name}'s {objects} objects, got {numbers.max()}"
        )
    return numbers
