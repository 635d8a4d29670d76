"""Layouts of data folders: which data set a folder holds, and where its splits are."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

from botvision.datasets.annotation_files import (
    first_file_names,
    is_coco,
    labelme_files,
    voc_files,
)
from botvision.datasets.unsupported import describe_unsupported
from botvision.errors import BotvisionError
from botvision.files import quoted
from botvision.images.find import files_below, is_image_name, is_leftover
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
    "COCO (annotations/instances_train.json, train/_annotations.coco.json or one JSON file), YOLO "
    "(data.yaml, obj.data, or label files and classes.txt), Pascal VOC (an XML file per image) and "
    "labelme (a JSON file per image)"
)
_TITLES: dict[Format, str] = {
    "coco": "COCO",
    "yolo": "YOLO",
    "voc": "Pascal VOC",
    "labelme": "labelme",
}
_ROBOFLOW = "_annotations.coco.json"
YOLO_NAME_LISTS = (
    *("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "names.txt", "class_names.txt"),
    *("_classes.txt", "label_list.txt", "predefined_classes.txt"),
)
"""Names of files of classes, one a line. The last one is labelImg's and may list other classes."""

TEXTS = "*.[tT][xX][tT]"
"""Glob pattern of text files."""

_PROBED_CHARACTERS = 2**20
_SEARCHED_FOLDERS = 10


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
        raise BotvisionError(
            f"{folder}: expected {wanted}{KNOWN_LAYOUTS}, got {_listing(folder)}{_hint(folder)}"
        )
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
    if folder.is_file():
        raise BotvisionError(
            f"{folder}: expected a data folder, got a file; name the folder that holds it, or "
            "unpack it if it is an archive"
        )
    if not folder.is_dir():
        raise BotvisionError(f"{folder}: no such data folder")


def _listing(folder: Path) -> str:
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in folder.iterdir())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "an empty folder") + more


def _hint(folder: Path) -> str:
    """Return what a folder without a known layout holds, and the way out."""
    # An archive's folder holds few others; class folders may be a thousand.
    for inner in _inner_folders(folder)[:_SEARCHED_FOLDERS]:
        if found := find_layouts(inner):
            return f"; {inner} has a {found[0]}: name that folder"
    known = describe_unsupported(folder)
    return f"; {known}" if known else ""


def _inner_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return sorted(folder / name for name in names if not is_leftover(name))


def _coco_files(folder: Path) -> Iterator[Path]:
    for split in SPLIT_WORDS:
        for word in SPLIT_WORDS[split]:
            yield from _annotation_files(folder, word)
    yield from _whole_files(folder)


def yolo_files(folder: Path) -> Iterator[Path]:
    """Yield evidence of YOLO: YAML files with classes, Darknet's obj.data, and label files."""
    descriptions = [p for pattern in ("*.yaml", "*.yml") for p in files_below(folder, pattern)]
    for path in sorted(descriptions, key=lambda p: (p.stem != "data", p)):
        text = path.read_text(encoding="utf-8-sig", errors="replace")[:_PROBED_CHARACTERS]
        if path.stem == "data" or re.search(r"^(names|nc)\s*:", text, re.MULTILINE):
            yield path
    for path in [*files_below(folder, "*.data"), *files_below(folder, "data/*.data")]:
        text = path.read_text(encoding="utf-8-sig", errors="replace")[:_PROBED_CHARACTERS]
        if re.search(r"^\s*(names|train)\s*=", text, re.MULTILINE):
            yield path
    for pattern in (f"[Ll]abels/**/{TEXTS}", f"*/[Ll]abels/**/{TEXTS}"):
        yield from (p for p in files_below(folder, pattern) if not is_yolo_name_list(p))
    # labelImg, CVAT and Darknet put the labels beside the images.
    for pattern in ("*", "*/*", "[Ii]mages/*/*"):
        files = list(files_below(folder, pattern))
        images = {path.with_suffix("") for path in files if is_image_name(path)}
        for path in files:
            is_text = path.suffix.lower() == ".txt"
            if is_text and path.with_suffix("") in images and is_yolo_label(path):
                yield path


def is_yolo_name_list(path: Path) -> bool:
    """Return whether a file is by its name a list of classes, one a line."""
    return path.name.lower() in YOLO_NAME_LISTS or path.suffix == ".names"


def is_yolo_label(path: Path) -> bool:
    """Return whether a text file begins with a class number and the numbers of a box or outline."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = next((line for line in file if line.strip()), "")
    fields = yolo_fields(line)
    numeric = all(re.fullmatch(r"[-+.\deE]+", field) for field in fields)
    return len(fields) >= 5 and numeric and re.fullmatch(r"\d+(\.0*)?", fields[0]) is not None


def yolo_fields(line: str) -> list[str]:
    """Return the fields of a line of a label file, between blanks or commas, with decimal points.

    Commas are decimal ones where blanks leave five fields or more of numbers with commas alone.
    """
    fields = line.split()
    if "," not in line:
        return fields
    if len(fields) >= 5 and all(re.fullmatch(r"-?\d+(,\d+)?", field) for field in fields):
        return [field.replace(",", ".") for field in fields]
    return [field for field in re.split(r"[\s,]+", line.strip()) if field]


def split_of(word: str) -> str | None:
    """Return the split that a word stands for, "train", "val" or "test"; None for other words."""
    if word == "test":
        return "test"
    return next((split for split, words in SPLIT_WORDS.items() if word in words), None)


def find_coco_split(folder: Path, split: str) -> CocoSplit:
    """Find a split of a COCO folder in one of the common layouts.

    The annotation file is ``annotations/instances_<split>.json`` (or ``<split>2017``),
    ``annotations/<split>.json``, ``<split>/_annotations.coco.json``, ``<split>.json``, or another
    JSON file with COCO's lists whose name or folder has the word in it; the images are beside it,
    in ``images/<split>/``, ``images/``, ``<split>2017/`` or another folder, wherever the first ones
    are. Names are compared without regard to case. Splits may have any name of ``SPLIT_WORDS``;
    "test" is taken as "val" if there is no other.

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
    if splits:
        return splits
    whole = whole_coco_set(folder)
    return {"train": whole} if whole else {}


def whole_coco_set(folder: Path) -> CocoSplit | None:
    """Find the files of a COCO folder without splits: one JSON file of any name, and images.

    Raises:
        BotvisionError: If there are several such files.
    """
    files = list(_whole_files(folder))
    if len(files) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in files)
        raise BotvisionError(
            f"{folder}: expected one COCO file, or one per split with train or val in its name, "
            f"got {names}"
        )
    return CocoSplit("", files[0], _image_folder(folder, "", "", files[0])) if files else None


def unread_coco_files(folder: Path, splits: Iterable[CocoSplit]) -> list[Path]:
    """Return the COCO files of a folder that are of none of its splits."""
    read = {split.annotations for split in splits}
    return [path for path in _other_coco_files(folder) if path not in read]


def _missing_split(folder: Path, split: str) -> str:
    here = any(
        next(_annotation_files(folder, w), None) for own in SPLIT_WORDS.values() for w in own
    )
    others = [layout for layout in find_layouts(folder) if layout.format != "coco"]
    which = f"; name the format coco, since there is a {others[0]} too" if others else ""
    train = next((f for w in SPLIT_WORDS["train"] for f in _annotation_files(folder, w)), None)
    if split == "val" and train is not None:
        return (
            f"{folder}: no split 'val' beside {train.relative_to(folder).as_posix()}; split that "
            f"with: {_command(folder, 'split')}{which}"
        )
    if not here and (whole := whole_coco_set(folder)):
        return (
            f"{folder}: no split {split!r}: {whole.annotations.name} holds all images; split them "
            f"with: {_command(folder, 'split')}{which}"
        )
    if len(others) > 1 and not here:
        return (
            f"{folder}: {' and '.join(map(str, others))}: convert one of them with: "
            f"{_command(folder, 'coco')}; name the format of it"
        )
    if others and not here:
        title = _TITLES[others[0].format]
        return f"{folder}: {title} layout: convert with: {_command(folder, 'coco')}"
    return (
        f"{folder}: expected annotations/instances_{split}.json, got no such file; known are "
        f"{KNOWN_LAYOUTS}{'' if here else _hint(folder)}"
    )


def _command(folder: Path, ending: str) -> str:
    """Return the command that makes a folder to train on, ready to be pasted into a shell."""
    source = folder if folder.name not in ("", "..") else folder.resolve()
    out = source.with_name(f"{source.name}_{ending}")
    number = 1
    while out.exists():
        number += 1
        out = source.with_name(f"{source.name}_{ending}{number}")
    return f"botvision data convert {quoted(source)} {quoted(out)}"


def _annotation_files(folder: Path, word: str) -> Iterator[Path]:
    """Yield files of the first form that there is any of; more than one is ambiguous."""
    annotations = _subfolder(folder, "annotations")
    exact = annotations / f"instances_{word}.json"
    for form in (
        (exact,),
        _named(annotations, rf"instances_{word}(?![a-z]).*"),
        _named(annotations, rf"{word}\d*"),
        _in_folders(folder, word),
        _named(folder, rf"instances_{word}(?![a-z]).*"),
        _named(folder, rf"{word}\d*"),
        _instances(folder, word),
    ):
        found = [path for path in form if path.is_file()]
        if found:
            yield from found
            return


def _whole_files(folder: Path) -> Iterator[Path]:
    """Yield COCO files that belong to no split."""
    if (folder / _ROBOFLOW).is_file():
        yield folder / _ROBOFLOW
        return
    yield from _instances(folder, "")


def _instances(folder: Path, word: str) -> Iterator[Path]:
    """Yield COCO files of any name with this word of a split, or with none.

    Those of instances, rather than of keypoints, where the names say so.
    """
    files = []
    for path in _other_coco_files(folder):
        words = _split_words(folder, path)
        if word in words or not (word or words):
            files.append(path)
    yield from [path for path in files if path.stem.lower().startswith("instances")] or files


def _other_coco_files(folder: Path) -> Iterator[Path]:
    """Yield COCO files of any name in the folder and up to two below."""
    inner = _inner_folders(folder)
    for parent in (folder, *inner, *(each for one in inner for each in _inner_folders(one))):
        # Of names alone: there may be a hundred thousand images.
        entries = (entry.name for entry in os.scandir(parent))
        names = (name for name in entries if name.lower().endswith(".json"))
        for path in sorted(parent / name for name in names if not is_leftover(name)):
            if path.is_file() and is_coco(path):
                yield path


def _split_words(folder: Path, path: Path) -> set[str]:
    """Return the words of a split in the path of a file; none if they are of several splits."""
    name = path.relative_to(folder).with_suffix("").as_posix()
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = {word.removesuffix("set") for word in re.split(r"[^a-z]+", name)}
    splits = {split_of(word) for word in words} - {None}
    return {word for word in words if split_of(word)} if len(splits) == 1 else set()


def _subfolder(folder: Path, name: str) -> Path:
    """Return the folder of this name in any case, if there is one."""
    found = [path for path in folder.glob("*") if path.name.lower() == name and path.is_dir()]
    return max(found, key=lambda path: path.name == name, default=folder / name)


def _named(folder: Path, pattern: str) -> Iterable[Path]:
    named = re.compile(pattern, re.IGNORECASE)
    return sorted(p for p in folder.glob("*.json") if named.fullmatch(p.stem))


def _in_folders(folder: Path, word: str) -> Iterable[Path]:
    named = re.compile(rf"{word}\d*", re.IGNORECASE)
    return sorted(p for p in folder.glob(f"*/{_ROBOFLOW}") if named.fullmatch(p.parts[-2]))


def _image_folder(folder: Path, word: str, split: str, annotations: Path) -> Path:
    if annotations.name == _ROBOFLOW:
        return annotations.parent
    named = re.compile(rf"{word}(?![a-z]).*" if word else "(?!)", re.IGNORECASE)
    images = _subfolder(folder, "images")
    paths = [images, *sorted([*images.glob("*"), *folder.glob("*")])]
    candidates = [p for p in paths if (p == images or named.fullmatch(p.name)) and p.is_dir()]
    for path in candidates:
        if is_sharded(path):
            return path
    names = first_file_names(annotations)
    parents = [annotations.parent, images, folder]
    if annotations.parent != folder:
        parents.append(annotations.parent.parent)
    others = (*parents, *(path for each in parents for path in _inner_folders(each)))
    for path in dict.fromkeys([*candidates, *others]):
        # A name such as ../a.jpg must not choose the folder that makes it look right.
        if any(
            ".." not in PureWindowsPath(name).parts and find_written(name, path, path)
            for name in names
        ):
            return path
    if not candidates:
        wanted = f"images/ or {split}2017/" if split else "images/"
        raise BotvisionError(f"{folder}: expected images in {wanted}, got none")
    return candidates[0]
