"""Pascal VOC folders: one XML file per image, and mask images."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from botvision.datasets.annotation_files import voc_files
from botvision.datasets.coco.writing import (
    CocoImage,
    box_annotation,
    mask_annotation,
    polygon_area,
)
from botvision.datasets.formats.faults import Faults
from botvision.datasets.formats.image_index import ImageIndex
from botvision.datasets.formats.labeled_sets import (
    Box,
    LabeledSet,
    Progress,
    polygon_corners,
    read_text,
)
from botvision.datasets.formats.voc_splits import voc_root, voc_splits
from botvision.errors import BotvisionError
from botvision.images.decode import read_numbers
from botvision.images.find import files_below

Origin = Literal[0, 1]
"""What the first pixel is counted as."""

_VOID = 255  # the border between objects in mask images
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    """``object`` element of an XML file, with the numbers that are written there.

    ``has_points`` tells whether a side is written with a decimal point.
    """

    name: str
    corners: Box
    polygons: list[list[float]]
    difficult: bool
    has_points: bool


@dataclass(frozen=True)
class _Entry:
    """Content of an XML file."""

    xml: Path
    filename: str
    size: tuple[str, str] | None
    database: str
    objects: list[_Object]


def read(
    folder: Path, *, voc_from: Origin | None = None, progress: Progress | None = None
) -> LabeledSet:
    """Read a Pascal VOC folder, or XML files that lie in another way.

    Boxes of the development kit are pixels counted from 1, the last one included. CVAT and others
    count from 0 and write the edges, so that a box is xmax - xmin wide. A value of 0 tells the
    latter, for the whole data set; so do decimal points in most boxes, and Roboflow's name.
    Polygons are counted as boxes are; masks come from ``SegmentationObject/``. Difficult objects
    become crowds, which are ignored in training and evaluation. Classes are numbered from 1 by
    name.

    Args:
        folder: Pascal VOC folder; nothing in it is changed.
        voc_from: What the boxes count from; None to tell it by the values, which is noted.
        progress: Called with the number of images read and the total.

    Returns:
        The data set, with the faults of its files.
    """
    result = LabeledSet(folder)
    files = list(voc_files(folder))
    splits = voc_splits(result, files)
    entries: dict[Path, _Entry] = {}
    for path in dict.fromkeys(path for paths in splits.values() for path in paths):
        with result.collecting():
            entries[path] = _read_entry(result, path)
    origin = _origin(result, list(entries.values())) if voc_from is None else voc_from
    images = ImageIndex(result, "filename")
    found: dict[str, list[tuple[CocoImage, list[tuple[str, dict[str, Any]]]]]] = {}
    names: set[str] = set()
    total, done = sum(map(len, splits.values())), 0
    for split, paths in splits.items():
        found[split] = []
        for entry in (entries[path] for path in paths if path in entries):
            with result.collecting():
                image, size = _image(result, images, entry)
                annotations = list(_annotations(result, entry, size, origin))
                names.update(each.name for each in entry.objects)
                found[split].append((CocoImage(image, *size, []), annotations))
            done += 1
            if progress:
                progress(done, total)
    images.add_notes(files, "an XML file")
    swapped = sum(_is_swapped(each.corners) for e in entries.values() for each in e.objects)
    if swapped:
        result.notes.append(
            f"{swapped:,} boxes have xmin over xmax or ymin over ymax: their corners are swapped"
        )
    if trimaps := _trimaps(folder):
        result.note_files("masks of pet, border and background (trimaps)", trimaps)
        result.notes.append(
            "the classes are those of the XML files, not the breeds of Oxford-IIIT Pet's list.txt"
        )
    ids = {name: number for number, name in enumerate(sorted(names), start=1)}
    result.categories = [{"id": number, "name": name} for name, number in ids.items()]
    for split, pairs in found.items():
        for record, annotations in pairs:
            record.annotations.extend(
                {**each, "category_id": ids[name]} for name, each in annotations
            )
        result.splits[split] = [record for record, _ in pairs]
    return result


def _read_entry(result: LabeledSet, path: Path) -> _Entry:
    result.inside(path, str(path))
    content = path.read_bytes()
    try:
        root = _parsed(content)
    except (ParseError, ValueError, LookupError) as error:  # declared entities among them
        if b"encoding=" not in content[:200].lower():
            read_text(path)  # says so if it is not UTF-8
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise BotvisionError(f"{path}: cannot be read as XML ({reason})") from error
    if root.tag != "annotation":
        raise BotvisionError(f"{path}: expected an annotation element, got {root.tag!r}")
    objects: list[_Object] = []
    faults = Faults()
    for number, element in enumerate(root.findall("object"), start=1):
        with faults.collecting():
            objects.append(_object(f"{path}: object {number}", element))
    faults.raise_collected(str(path))
    sides = root.findtext("size/width"), root.findtext("size/height")
    return _Entry(
        path,
        (root.findtext("filename") or "").strip(),
        None if sides[0] is None or sides[1] is None else (sides[0].strip(), sides[1].strip()),
        root.findtext("source/database") or "",
        objects,
    )


def _parsed(content: bytes) -> Element:
    """Parse XML of any encoding that Python knows; the parser knows few of its own."""
    try:
        return fromstring(content)
    except (ValueError, LookupError, ParseError):
        declared = re.match(rb"<\?xml[^>]*encoding=[\"']([\w.-]+)[\"'][^>]*\?>", content)
        if declared is None:
            raise
        return fromstring(content[declared.end() :].decode(declared[1].decode()))


def _object(where: str, element: Element) -> _Object:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise BotvisionError(f"{where}: name: expected a class, got none")
    polygons = [
        [
            _number(f"{where}: polygon: {point.tag}", point.text)
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
    rotated = element.find("robndbox")
    if rotated is not None and not polygons:
        polygons = [_rotated(where, rotated)]
    if element.find("bndbox") is None and polygons:
        corners = polygon_corners(polygons)
    else:
        values = (_number(f"{where}: {s}", element.findtext(f"bndbox/{s}")) for s in _SIDES)
        left, top, right, bottom = values
        corners = left, top, right, bottom
    difficult = (element.findtext("difficult") or "").strip().lower()
    has_points = any("." in (element.findtext(f"bndbox/{side}") or "") for side in _SIDES)
    return _Object(name, corners, polygons, difficult in ("1", "true", "yes"), has_points)


def _rotated(where: str, element: Element) -> list[float]:
    """Return the polygon of roLabelImg's box: center, sides and an angle in radians."""
    x, y, width, height, angle = (
        _number(f"{where}: robndbox: {side}", element.findtext(side))
        for side in ("cx", "cy", "w", "h", "angle")
    )
    cosine, sine = math.cos(angle), math.sin(angle)
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    offsets = [(across * width / 2, down * height / 2) for across, down in corners]
    return [
        value
        for dx, dy in offsets
        for value in (x + dx * cosine - dy * sine, y + dx * sine + dy * cosine)
    ]


def _number(where: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BotvisionError(f"{where}: expected a number, got {text!r}")
    return value


def _origin(result: LabeledSet, entries: list[_Entry]) -> Origin:
    """Tell what the boxes of a data set count from, and note why."""
    boxes = [each.corners for entry in entries for each in entry.objects]
    zeros = sum(0 <= min(box[:2]) < 1 for box in boxes)
    points = sum(each.has_points for entry in entries for each in entry.objects)
    roboflow = any("roboflow" in entry.database.lower() for entry in entries)
    if zeros:
        why = f"xmin or ymin is 0 in {zeros:,} of {len(boxes):,} objects"
    elif points * 2 > len(boxes):
        why = f"{points:,} of {len(boxes):,} boxes have decimal points, as CVAT and Datumaro write"
    elif roboflow:
        why = "Roboflow wrote them"
    else:
        if boxes:
            result.notes.append(
                "boxes are taken as counted from 1, the last pixel included, as the development "
                "kit does: no xmin or ymin is 0; voc_from=0 is for tools that count from 0"
            )
        return 1
    result.notes.append(
        f"boxes are taken as counted from 0, xmax - xmin wide: {why}; voc_from=1 is for the "
        "development kit's, which count from 1"
    )
    return 0


def _image(result: LabeledSet, images: ImageIndex, entry: _Entry) -> tuple[Path, tuple[int, int]]:
    """Return the image of an XML file and its size."""
    image = images.find(entry.xml, entry.filename)
    if image is None:
        raise images.missing(entry.xml, entry.filename)
    size = result.size(image, str(entry.xml))
    if entry.size is not None and "0" not in entry.size:
        sides = tuple(text.removesuffix(".0") for text in entry.size)
        if sides != tuple(map(str, size)):
            raise BotvisionError(
                f"{entry.xml}: size: expected {size[0]} x {size[1]} as {image.name} is, "
                f"got {' x '.join(sides)}"
            )
    return image, size


def _annotations(
    result: LabeledSet, entry: _Entry, size: tuple[int, int], origin: Origin
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield class name and record of each object; category ids are filled in at the end."""
    numbers = _mask_numbers(result, entry, size)
    for number, each in enumerate(entry.objects, start=1):
        left, top, right, bottom = each.corners
        if _is_swapped(each.corners):
            left, right = sorted((left, right))
            top, bottom = sorted((top, bottom))
        box = result.box((left - origin, top - origin, right, bottom), size)
        if box is None:
            continue
        record = box_annotation(box, 0, iscrowd=int(each.difficult))
        if numbers is not None and (mask := numbers == number).any():
            drawn = mask_annotation(mask, 0)
            record |= {"segmentation": drawn["segmentation"], "area": drawn["area"]}
        elif each.polygons:
            polygons = [[value - origin for value in polygon] for polygon in each.polygons]
            record |= {"segmentation": polygons, "area": polygon_area(polygons)}
        yield each.name, record


def _is_swapped(corners: Box) -> bool:
    """Return whether corners are in the wrong order by more than what rounding does."""
    left, top, right, bottom = corners
    return left > right + 1 or top > bottom + 1


def _trimaps(folder: Path) -> list[Path]:
    """Return the trimaps of an Oxford-IIIT Pet folder, which are beside its XML files."""
    return [
        path
        for pattern in ("trimaps/*.png", "*/trimaps/*.png")
        for path in files_below(folder, pattern)
    ]


def _mask_numbers(
    result: LabeledSet, entry: _Entry, size: tuple[int, int]
) -> NDArray[np.uint8] | None:
    """Return the number of each pixel's object, from 1 in file order; None without a mask."""
    root, relative = voc_root(entry.xml)
    path = root / "SegmentationObject" / relative.with_suffix(".png")
    if not path.is_file():
        return None
    numbers = read_numbers(result.inside(path, str(entry.xml)))
    if numbers.shape[::-1] != size:
        raise BotvisionError(f"{path}: expected {size[0]} x {size[1]} pixels as the image has")
    numbers[numbers == _VOID] = 0
    if numbers.max() > len(entry.objects):
        raise BotvisionError(
            f"{path}: expected numbers of {entry.xml.name}'s {len(entry.objects)} objects, got "
            f"{numbers.max()}"
        )
    return numbers
