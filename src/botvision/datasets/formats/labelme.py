"""labelme folders: one JSON file of polygons and rectangles per image."""

import itertools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from botvision.datasets.annotation_files import labelme_files
from botvision.datasets.coco.file import read_json
from botvision.datasets.coco.records import is_finite
from botvision.datasets.coco.writing import CocoImage, box_annotation, polygon_area
from botvision.datasets.formats.labeled_sets import (
    LabeledSet,
    Progress,
    polygon_corners,
)
from botvision.datasets.layouts import split_of
from botvision.errors import BotvisionError


def read(folder: Path, *, progress: Progress | None = None) -> LabeledSet:
    """Read a folder of labelme's JSON files, or folders of them by split.

    Shapes of one label and one ``group_id`` are one instance. Other shapes than polygons and
    rectangles are left out and counted. The image is the file that ``imagePath`` names, or the
    file of that name beside the JSON file; ``imageData`` is ignored. Classes are numbered from 1 by
    name.

    Args:
        folder: labelme folder; nothing in it is changed.
        progress: Called with the number of files read and the total.

    Raises:
        BotvisionError: Naming the file and the shape.
    """
    result = LabeledSet(folder)
    files = list(labelme_files(folder))
    images: list[tuple[str, CocoImage]] = []
    ids: dict[str, int] = {}
    for number, path in enumerate(files, start=1):
        content = read_json(result.inside(path, str(path)))
        image = _image_path(result, path, content.get("imagePath"))
        size = result.size(image, f"{path}: imagePath")
        for side, expected in zip(("imageWidth", "imageHeight"), size, strict=True):
            if content.get(side) not in (None, expected):
                raise BotvisionError(
                    f"{path}: {side}: expected {expected} as {image.name} is, got "
                    f"{content[side]!r:.60}"
                )
        # Until all names are known, a class is numbered by its first occurrence.
        annotations = [
            record | {"category_id": ids.setdefault(label, len(ids))}
            for label, record in _annotations(result, path, content.get("shapes"), size)
        ]
        split = split_of(path.parent.name) if path.parent != folder else None
        images.append((split or "train", CocoImage(image, *size, annotations)))
        if progress:
            progress(number, len(files))
    numbers = {ids[name]: number for number, name in enumerate(sorted(ids), start=1)}
    for split, each in images:
        for record in each.annotations:
            record["category_id"] = numbers[record["category_id"]]
        result.splits.setdefault(split, []).append(each)
    result.categories = [{"id": numbers[ids[name]], "name": name} for name in sorted(ids)]
    return result


def _image_path(result: LabeledSet, path: Path, named: Any) -> Path:
    if not isinstance(named, str) or not named:
        raise BotvisionError(f"{path}: imagePath: expected an image's path, got {named!r:.60}")
    # Windows' separators come from Windows; a name with a backslash in it does not occur.
    relative = PurePosixPath(PureWindowsPath(named).as_posix())
    meant = path.parent / relative
    beside = path.parent / relative.name
    if not meant.resolve().is_relative_to(result.root.resolve()) and beside.is_file():
        return beside
    result.inside(meant, f"{path}: imagePath")
    return meant if meant.is_file() else beside


def _annotations(
    result: LabeledSet, path: Path, shapes: Any, size: tuple[int, int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(shapes, list):
        raise BotvisionError(f"{path}: shapes: expected a list, got {type(shapes).__name__}")
    groups: dict[Any, list[tuple[str, list[float]]]] = {}
    for number, shape in enumerate(shapes, start=1):
        where = f"{path}: shape {number}"
        if not isinstance(shape, dict):
            raise BotvisionError(f"{where}: expected an object, got {type(shape).__name__}")
        label, kind, group = (shape.get(key) for key in ("label", "shape_type", "group_id"))
        if kind not in ("polygon", "rectangle", None):  # files before 2018 know polygons only
            result.skipped[f"shape of type {kind!r:.20}"] += 1
            continue
        if not isinstance(label, str) or not label:
            raise BotvisionError(f"{where}: label: expected a class, got {label!r:.60}")
        if not isinstance(group, int | str | None):
            raise BotvisionError(f"{where}: group_id: expected a number, got {group!r:.60}")
        points = _points(where, shape.get("points"))
        if kind == "rectangle":
            if len(points) < 4:
                raise BotvisionError(f"{where}: points: expected 2 corners, got {len(points) // 2}")
            points = list(polygon_corners([points]))
        elif len(points) < 6:
            result.skipped["polygon of fewer than 3 points"] += 1
            continue
        key = number if group is None else (label, group)
        groups.setdefault(key, []).append((label, points))
    for members in groups.values():
        record = _instance([points for _, points in members], result, size)
        if record:
            yield members[0][0], record


def _instance(
    parts: list[list[float]], result: LabeledSet, size: tuple[int, int]
) -> dict[str, Any] | None:
    """Return a record of the parts of an instance; four numbers are a rectangle's corners."""
    polygons = [_rectangle(part) if len(part) == 4 else part for part in parts]
    box = result.box(polygon_corners(polygons), size)
    if box is None:
        return None
    if len(parts) == 1 and len(parts[0]) == 4:
        return box_annotation(box, 0)
    return box_annotation(box, 0, area=polygon_area(polygons), segmentation=polygons)


def _rectangle(corners: list[float]) -> list[float]:
    left, top, right, bottom = corners
    return [left, top, right, top, right, bottom, left, bottom]


def _points(where: str, points: Any) -> list[float]:
    if isinstance(points, list) and all(isinstance(p, list) and len(p) == 2 for p in points):
        values = list(itertools.chain.from_iterable(points))
        if all(map(is_finite, values)):
            return [float(value) for value in values]
    raise BotvisionError(f"{where}: points: expected pairs of finite numbers, got {points!r:.60}")
