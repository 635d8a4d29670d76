"""Class names of YOLO folders: of data.yaml, or of a list such as classes.txt."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botvision.datasets.formats.labeled_sets import read_text
from botvision.datasets.layouts import YOLO_NAME_LISTS, is_yolo_name_list, yolo_files
from botvision.errors import BotvisionError
from botvision.images.find import files_below


@dataclass(frozen=True)
class YoloClasses:
    """Classes of a YOLO folder.

    Attributes:
        names: Class names by index.
        keypoint_fields: Number of keypoint fields of a line; None if the folder does not say.
    """

    names: dict[int, str]
    keypoint_fields: int | None = None


def yaml_classes(path: Path, content: dict[str, Any]) -> YoloClasses:
    """Return the classes of a data.yaml.

    Raises:
        BotvisionError: Naming the file and the key.
    """
    names = content.get("names")
    if isinstance(names, str) and names and (path.parent / names).is_file():
        names = _listed(path.parent / names)
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
        return YoloClasses(by_index)
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)):
        raise BotvisionError(f"{path}: kpt_shape: expected two whole numbers, got {shape!r:.60}")
    return YoloClasses(by_index, shape[0] * shape[1])


def listed_classes(folder: Path) -> YoloClasses:
    """Return the classes of the list that lies in a folder or a few levels below it.

    labelImg adds classes to the list of each folder that it saves to, so that a list may be the
    beginning of another one.

    Raises:
        BotvisionError: If there is no list, or lists differ.
    """
    lists = [
        path
        for pattern in ("*", "*/*", "*/*/*")
        for path in files_below(folder, pattern)
        if is_yolo_name_list(path)
    ]
    # labelImg's own list is of other classes, unless it is the only one.
    chosen = [path for path in lists if path.name.lower() != YOLO_NAME_LISTS[-1]] or lists
    found = {path: names for path in chosen if (names := _listed(path))}
    if not found:
        return YoloClasses(_label_studio_names(folder))
    longest = max(found, key=lambda path: len(found[path]))
    for path, names in found.items():
        if names != found[longest][: len(names)]:
            raise BotvisionError(
                f"{path}: expected the classes of {longest} in the same order, got others; the "
                "class numbers of the label files would mean two things: keep one of the lists"
            )
    return YoloClasses(dict(enumerate(found[longest])))


def _listed(path: Path) -> list[str]:
    names = [line.strip() for line in read_text(path).rstrip().split("\n")]
    if names == [""]:
        return []
    if "" in names:
        raise BotvisionError(f"{path}: line {names.index('') + 1}: expected a class, got no name")
    return names


def _label_studio_names(folder: Path) -> dict[int, str]:
    """Return the names in Label Studio's notes.json, which lies beside its classes.txt."""
    path = folder / "notes.json"
    try:
        records = json.loads(read_text(path))["categories"] if path.is_file() else []
        names = {int(each["id"]): str(each["name"]) for each in records}
    except (ValueError, KeyError, TypeError):
        names = {}
    if names:
        return names
    # Archives often hold the data set in a folder of its own.
    patterns = ("*/*.yaml", "*/*.yml")
    described = (path for each in patterns for path in files_below(folder, each))
    inner = next((p for p in described if p in yolo_files(p.parent)), None)
    there = f"; there is {inner}: give its folder instead" if inner else ""
    raise BotvisionError(
        f"{folder}: names: expected them in data.yaml (names: [cat, dog]) or, one a line, in "
        f"{', '.join(YOLO_NAME_LISTS[:4])} or the like, got neither{there}"
    )
