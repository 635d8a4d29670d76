"""Layouts of data folders: which data set a folder holds, and where its splits are."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

from botvision.errors import BotvisionError
from botvision.images.written_paths import find_written
from botvision.shards.index import is_sharded

Format = Literal["coco", "yolo", "voc", "labelme"]

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "test"),
    "test": ("test",),
}
"""Names that data sets give to each split, the most common one first."""

KNOWN_LAYOUTS = (
    "COCO (annotations/instances_train.json or train/_annotations.coco.json), YOLO (data.yaml), "
    "Pascal VOC (Annotations/*.xml) and labelme (a JSON file an image)"
)
_TITLES: dict[Format, str] = {
    "coco": "COCO",
    "yolo": "YOLO",
    "voc": "Pascal VOC",
    "labelme": "labelme",
}
_ROBOFLOW = "_annotations.coco.json"
_PROBED_CHARACTERS = 2**20


@dataclass(frozen=True)
class Layout:
    """Layout of a data folder.

    Attributes:
        format: Format of the annotations.
        evidence: File that the format was recognized by, relative to the folder.
    """

    format: Format
    evidence: str

    def __str__(self) -> str:
        return f"{_TITLES[self.format]} layout ({self.evidence})"


@dataclass(frozen=True)
class CocoSplit:
    """Files of a split of a COCO folder.

    Attributes:
        name: Name of the split in the folder, such as "valid".
        annotations: Annotation file.
        images: Folder that its ``file_name`` entries start from.
    """

    name: str
    annotations: Path
    images: Path


def detect_layout(folder: Path, expected: Format | None = None) -> Layout:
    """Recognize the layout of a detection data set from its files.

    Args:
        folder: Data folder.
        expected: Format to choose if there are several.

    Raises:
        BotvisionError: If there is no such folder, or it holds none or several of the known
            layouts.
    """
    found = [each for each in find_layouts(folder) if expected in (None, each.format)]
    if len(found) > 1:
        raise BotvisionError(
            f"{folder}: expected one layout, got {' and '.join(map(str, found))}; name the "
            "format of one"
        )
    if not found:
        wanted = f"a {_TITLES[expected]} layout; known are " if expected else ""
        raise BotvisionError(f"{folder}: expected {wanted}{KNOWN_LAYOUTS}, got {_listing(folder)}")
    return found[0]


def find_layouts(folder: Path) -> list[Layout]:
    """Return the layouts that a folder holds: usually one, or none.

    Raises:
        BotvisionError: If there is no such folder.
    """
    _check_folder(folder)
    evidence: dict[Format, Path | None] = {
        "coco": next(_coco_files(folder), None),
        "yolo": next(yolo_files(folder), None),
        "voc": next(voc_files(folder), None),
        "labelme": next(labelme_files(folder), None),
    }
    return [
        Layout(name, path.relative_to(folder).as_posix())
        for name, path in evidence.items()
        if path is not None
    ]


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BotvisionError(f"{folder}: no such data folder")


def _listing(folder: Path) -> str:
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "an empty folder") + more


def _coco_files(folder: Path) -> Iterator[Path]:
    for split in SPLIT_WORDS:
        for word in SPLIT_WORDS[split]:
            yield from _annotation_files(folder, word)
    if (folder / _ROBOFLOW).is_file():
        yield folder / _ROBOFLOW


def yolo_files(folder: Path) -> Iterator[Path]:
    """Yield evidence of YOLO: data.yaml, other YAML files with classes, and label files."""
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        text = path.read_text(encoding="utf-8", errors="replace")[:_PROBED_CHARACTERS]
        if path.stem == "data" or re.search(r"^(names|nc)\s*:", text, re.MULTILINE):
            yield path
    yield from sorted(p for p in (folder / "labels").glob("**/*.txt") if p.name != "classes.txt")


def voc_files(folder: Path) -> Iterator[Path]:
    """Yield XML files of a Pascal VOC folder, of its splits' folders or of a folder with images."""
    for parent in (folder / "Annotations", folder, *_split_folders(folder)):
        yield from sorted(parent.glob("*.xml"))


def labelme_files(folder: Path) -> Iterator[Path]:
    """Yield JSON files of single images, in the folder or one below."""
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_PROBED_CHARACTERS)
        # imageData may stand between the shapes and imagePath, and be long.
        if '"shapes"' in head and '"annotations"' not in head:
            yield path


def _split_folders(folder: Path) -> Iterator[Path]:
    for word in dict.fromkeys(word for words in SPLIT_WORDS.values() for word in words):
        if (folder / word).is_dir():
            yield folder / word


def split_of(word: str) -> str | None:
    """Return the split that a word stands for, "train", "val" or "test"; None for other words."""
    if word == "test":
        return "test"
    return next((split for split, words in SPLIT_WORDS.items() if word in words), None)


def find_coco_split(folder: Path, split: str) -> CocoSplit:
    """Find a split of a COCO folder in one of the common layouts.

    The annotation file is ``annotations/instances_<split>.json`` (or ``<split>2017``),
    ``annotations/<split>.json``, ``<split>/_annotations.coco.json`` or ``<split>.json``; the
    images are beside it, in ``images/<split>/``, ``images/`` or ``<split>2017/``, wherever the
    first one is. Splits may have any name of ``SPLIT_WORDS``; "test" is taken as "val" if there is
    no other.

    Raises:
        BotvisionError: If the folder or either part is missing; the message says what it needs.
    """
    _check_folder(folder)
    for word in SPLIT_WORDS.get(split, (split,)):
        files = list(_annotation_files(folder, word))
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise BotvisionError(
                f"{folder}: expected annotations/instances_{split}.json, got {names}"
            )
        if files:
            return CocoSplit(word, files[0], _image_folder(folder, word, split, files[0]))
    raise BotvisionError(_missing_split(folder, split))


def coco_splits(folder: Path) -> dict[str, CocoSplit]:
    """Find all splits of a COCO folder; a folder that is not split is all "train"."""
    splits = {}
    for split in SPLIT_WORDS:
        if any(next(_annotation_files(folder, word), None) for word in SPLIT_WORDS[split]):
            splits[split] = find_coco_split(folder, split)
    if "val" in splits and splits["val"].name == "test":
        del splits["test"]
    whole = whole_coco_set(folder)
    return splits or ({"train": whole} if whole else {})


def whole_coco_set(folder: Path) -> CocoSplit | None:
    """Find the files of a COCO folder without splits: ``_annotations.coco.json`` and images."""
    path = folder / _ROBOFLOW
    return CocoSplit("", path, folder) if path.is_file() else None


def _missing_split(folder: Path, split: str) -> str:
    if whole_coco_set(folder):
        return (
            f"{folder}: no split {split!r}: {_ROBOFLOW} holds all images; split them with: "
            f"botvision data convert {folder} {folder}_split"
        )
    others = [layout for layout in find_layouts(folder) if layout.format != "coco"]
    train = next((f for w in SPLIT_WORDS["train"] for f in _annotation_files(folder, w)), None)
    if split == "val" and train is not None:
        return (
            f"{folder}: no split 'val' beside {train.relative_to(folder).as_posix()}; split that "
            f"with: botvision data convert {folder} {folder}_split"
        )
    if others:
        title = _TITLES[others[0].format]
        return (
            f"{folder}: {title} layout: convert with: botvision data convert {folder} {folder}_coco"
        )
    return (
        f"{folder}: expected annotations/instances_{split}.json, got no such file; known are "
        f"{KNOWN_LAYOUTS}"
    )


def _annotation_files(folder: Path, word: str) -> Iterator[Path]:
    """Yield files of the first form that there is any of; more than one is ambiguous."""
    annotations = folder / "annotations"
    exact = annotations / f"instances_{word}.json"
    for form in (
        (exact,),
        _named(annotations, rf"instances_{word}(?![a-z]).*"),
        _named(annotations, rf"{word}\d*"),
        _in_folders(folder, word),
        _named(folder, rf"instances_{word}(?![a-z]).*"),
        _named(folder, rf"{word}\d*"),
    ):
        found = [path for path in form if path.is_file()]
        if found:
            yield from found
            return


def _named(folder: Path, pattern: str) -> Iterable[Path]:
    return sorted(p for p in folder.glob("*.json") if re.fullmatch(pattern, p.stem))


def _in_folders(folder: Path, word: str) -> Iterable[Path]:
    return sorted(
        path
        for path in folder.glob(f"*/{_ROBOFLOW}")
        if re.fullmatch(rf"{word}\d*", path.parts[-2])
    )


def _image_folder(folder: Path, word: str, split: str, annotations: Path) -> Path:
    if annotations.name == _ROBOFLOW:
        return annotations.parent
    named = re.compile(rf"{word}(?![a-z]).*")
    images = folder / "images"
    paths = [images, *sorted([*images.glob("*"), *folder.glob("*")])]
    candidates = [p for p in paths if (p == images or named.fullmatch(p.name)) and p.is_dir()]
    if not candidates:
        raise BotvisionError(f"{folder}: expected images in images/ or {split}2017/, got neither")
    for path in candidates:
        if is_sharded(path):
            return path
    first = _first_file_name(annotations)
    for path in (*candidates, folder):
        # A name such as ../a.jpg must not choose the folder that makes it look right.
        with contextlib.suppress(OSError):  # a name too long for the file system
            if (
                first
                and ".." not in PureWindowsPath(first).parts
                and find_written(first, path, path)
            ):
                return path
    return candidates[0]


def _first_file_name(path: Path) -> str | None:
    """Return the first image's name, without reading the rest of maybe half a gigabyte."""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_PROBED_CHARACTERS)
    for field, name in (("file_name", str), ("coco_url", name_in_url)):
        if found := re.search(rf'"{field}"\s*:\s*("(?:[^"\\]|\\.)*")', text):
            with contextlib.suppress(json.JSONDecodeError):
                return name(json.loads(found[1]))
    return None


def name_in_url(url: str) -> str:
    """Return the file name in LVIS's addresses of images, such as "val2017/000000397133.jpg"."""
    return "/".join(url.split("/")[-2:])
