"""YOLO folders: boxes and polygons in text files, as fractions of the image's sides."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from botvision.datasets.coco.writing import CocoImage, box_annotation, polygon_area
from botvision.datasets.formats.labeled_sets import (
    LabeledSet,
    Progress,
    polygon_corners,
    read_text,
)
from botvision.datasets.layouts import split_of, yolo_files
from botvision.errors import BotvisionError
from botvision.images.find import image_files

_ROUNDING = 1e-5  # writers with 6 decimals exceed 0..1 by less


@dataclass(frozen=True)
class _Classes:
    """Class names by index, and the number of keypoint fields of a line."""

    names: dict[int, str]
    keypoint_fields: int


def read(folder: Path, *, progress: Progress | None = None) -> LabeledSet:
    """Read a YOLO detection or segmentation folder.

    ``data.yaml`` gives the classes and the image folders of ``train``, ``val`` and ``test``;
    without one, ``images/`` (or ``images/<split>/``) and ``classes.txt`` are taken. Labels are
    where YOLO looks for them: under the path with ``labels`` for ``images``, or beside the image.
    A class keeps its index as category id. Of lines with keypoints only the box is read.

    Args:
        folder: YOLO folder; nothing in it is changed.
        progress: Called with the number of images read and the total.

    Raises:
        BotvisionError: Naming the file and the line.
    """
    result = LabeledSet(folder)
    description = next((p for p in yolo_files(folder) if p.suffix in (".yaml", ".yml")), None)
    if description:
        content = _read_yaml(description)
        classes = _yaml_classes(description, content)
        splits = _yaml_splits(result, description, content)
    else:
        classes = _listed_classes(folder)
        splits = _folder_splits(folder)
    result.categories = [{"id": index, "name": name} for index, name in classes.names.items()]
    total, done = sum(map(len, splits.values())), 0
    image_folders: dict[Path, Path] = {}
    for split, images in splits.items():
        result.splits[split] = []
        for image in images:
            size = result.size(image, str(description or folder))
            path = result.inside(_label_path(folder, image), str(image))
            image_folders[path.parent] = image.parent
            annotations = list(_annotations(result, path, size, classes)) if path.exists() else []
            result.splits[split].append(CocoImage(image, *size, annotations))
            done += 1
            if progress:
                progress(done, total)
    _check_orphans(image_folders)
    return result


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise BotvisionError(f"{path}: line {line}: not YAML") from error
    if not isinstance(content, dict):
        raise BotvisionError(f"{path}: expected names, train and val, got {content!r:.60}")
    return content


def _yaml_classes(path: Path, content: dict[str, Any]) -> _Classes:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise BotvisionError(f"{path}: names: expected the classes' names, got {names!r:.60}")
    try:
        by_index = {int(index): str(name) for index, name in sorted(names.items())}
    except (TypeError, ValueError) as error:
        raise BotvisionError(
            f"{path}: names: expected names by index, got {names!r:.60}"
        ) from error
    count = content.get("nc", len(names))
    if count != len(names):
        raise BotvisionError(f"{path}: nc: expected {len(names)} as there are names, got {count!r}")
    shape = content.get("kpt_shape")
    if shape is None:
        return _Classes(by_index, 0)
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)):
        raise BotvisionError(f"{path}: kpt_shape: expected two whole numbers, got {shape!r:.60}")
    return _Classes(by_index, shape[0] * shape[1])


def _listed_classes(folder: Path) -> _Classes:
    for path in (folder / "classes.txt", folder / "labels" / "classes.txt"):
        if path.is_file():
            return _Classes(dict(enumerate(read_text(path).strip().split("\n"))), 0)
    raise BotvisionError(
        f"{folder}: names: expected them in data.yaml (names: [cat, dog]) or, one a line, in "
        "classes.txt, got neither"
    )


def _yaml_splits(result: LabeledSet, path: Path, content: dict[str, Any]) -> dict[str, list[Path]]:
    base = result.root
    if root := content.get("path"):
        named = base / str(root)
        if named.is_dir() and named.resolve().is_relative_to(base.resolve()):
            base = named
        else:
            # A path of the computer that made the file, or relative to another folder.
            result.notes.append(f"{path}: path: {root} is not in {base}, which is taken instead")
    splits = {}
    for word in ("train", "val", "valid", "test"):
        value = content.get(word)
        split = split_of(word)
        if not value or split is None or split in splits:
            continue
        entries = value if isinstance(value, list) else [value]
        splits[split] = [
            image
            for entry in entries
            for image in _images(_entry(result, path, word, base, str(entry)))
        ]
        if not splits[split]:
            raise BotvisionError(f"{path}: {word}: expected images, got none in {value}")
    if not splits:
        raise BotvisionError(f"{path}: expected train and val with image folders, got neither")
    return splits


def _entry(result: LabeledSet, path: Path, word: str, base: Path, value: str) -> Path:
    """Return the folder or list that an entry of data.yaml names."""
    where = f"{path}: {word}"
    # Roboflow writes ../train/images for what is beside its data.yaml.
    shorter = re.sub(r"^(\.\./)+", "", value)
    if shorter != value and (base / shorter).exists():
        result.notes.append(f"{where}: {value} is taken as {shorter}, as Roboflow means it")
        return result.inside(base / shorter, where)
    named = result.inside(base / value, where)
    if named.exists():
        return named
    raise BotvisionError(f"{where}: expected an image folder or a list, got {value}: nothing there")


def _images(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield from image_files(source)
    elif source.suffix == ".txt":
        yield from (source.parent / line for line in read_text(source).split("\n") if line.strip())
    else:
        yield source


def _folder_splits(folder: Path) -> dict[str, list[Path]]:
    images = folder / "images"
    inner = {
        split: p for p in sorted(images.glob("*")) if p.is_dir() and (split := split_of(p.name))
    }
    splits = {split: list(_images(p)) for split, p in (inner or {"train": images}).items()}
    if not any(splits.values()):
        raise BotvisionError(f"{images}: expected images, got none")
    return splits


def _label_path(folder: Path, image: Path) -> Path:
    parts = list(image.relative_to(folder).parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return folder.joinpath(*parts).with_suffix(".txt")


def _annotations(
    result: LabeledSet, path: Path, size: tuple[int, int], classes: _Classes
) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = line.split()
        if fields:
            annotation = _annotation(result, f"{path}: line {number}", fields, size, classes)
            if annotation:
                yield annotation


def _annotation(
    result: LabeledSet, where: str, fields: list[str], size: tuple[int, int], classes: _Classes
) -> dict[str, Any] | None:
    if classes.keypoint_fields and len(fields) == 5 + classes.keypoint_fields:
        fields = fields[:5]
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        raise BotvisionError(
            f"{where}: expected a class and 4 numbers of a box or at least 3 points, got "
            f"{len(fields)} fields"
        )
    try:
        category, *numbers = (float(value) for value in fields)
    except ValueError as error:
        raise BotvisionError(f"{where}: expected numbers, got {' '.join(fields):.60}") from error
    if category not in classes.names:
        indices = f"{min(classes.names)} to {max(classes.names)}"
        raise BotvisionError(f"{where}: class: expected {indices}, got {fields[0]}")
    for value, text in zip(numbers, fields[1:], strict=True):
        if not -_ROUNDING <= value <= 1 + _ROUNDING:
            raise BotvisionError(
                f"{where}: expected fractions of the image's sides from 0 to 1, got {text}"
            )
    width, height = size
    if len(numbers) == 4:
        x, y, w, h = numbers
        corners = ((x - w / 2) * width, (y - h / 2) * height)
        box = result.box((*corners, (x + w / 2) * width, (y + h / 2) * height), size)
        return box_annotation(box, int(category)) if box else None
    polygon = [value * size[index % 2] for index, value in enumerate(numbers)]
    box = result.box(polygon_corners([polygon]), size)
    if not box:
        return None
    return box_annotation(box, int(category), area=polygon_area([polygon]), segmentation=[polygon])


def _check_orphans(image_folders: dict[Path, Path]) -> None:
    """Check that each label file has its image: where one is missing, images were lost.

    Args:
        image_folders: Image folder of each label folder.
    """
    for labels, images in sorted(image_folders.items()):
        stems = {p.stem for p in image_files(images, "*")}
        for path in sorted(labels.glob("*.txt")):
            if path.stem in stems:
                continue
            # Lists and classes of the whole set may lie there too.
            first = path.read_text(encoding="utf-8", errors="replace").split(maxsplit=1)[:1]
            if first and first[0].isdecimal():
                raise BotvisionError(f"{path}: expected an image {path.stem}.* in {images}")
