"""Splits of Pascal VOC folders: the lists of ``ImageSets/``, or folders."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from botvision.datasets.formats.labeled_sets import LabeledSet, read_text
from botvision.datasets.layouts import split_of
from botvision.errors import BotvisionError
from botvision.images.find import files_below, is_image_name

# "default" is CVAT's list of images without a split.
_TRAINVAL = ("trainval", "default", "all")
_KINDS = ("main", "segmentation", "layout", "")


def voc_root(path: Path) -> tuple[Path, Path]:
    """Return the Pascal VOC folder of an XML file, and the file's path below its annotations."""
    for parent in path.parents:
        if parent.name.lower() == "annotations":
            return parent.parent, path.relative_to(parent)
    return path.parent, Path(path.name)


def voc_splits(result: LabeledSet, files: list[Path]) -> dict[str, list[Path]]:
    """Return the XML files of each split, by lists where there are any, else by folders.

    Files in no list are noted; a line without its file is a fault.
    """
    splits: dict[str, list[Path]] = {}
    lists_of: dict[Path, dict[str, Path]] = {result.root: _lists(result, result.root)}
    groups: dict[Path, list[Path]] = {}
    for path in files:
        root = voc_root(path)[0]
        if root not in lists_of:
            lists_of[root] = _lists(result, root)
        groups.setdefault(root if lists_of[root] else result.root, []).append(path)
    unlisted: list[Path] = []
    for root, own in groups.items():
        lists = lists_of[root]
        found = _listed_splits(result, lists, own)
        if found is None:
            if lists:
                result.notes.append(
                    f"{next(iter(lists.values()))}: no line names an XML file of {root}; the lists "
                    "are not used"
                )
            for path in own:
                splits.setdefault(_folder_split(result.root, path), []).append(path)
            continue
        for split, paths in found.items():
            splits.setdefault(split, []).extend(paths)
        unlisted += set(own).difference(*found.values())
    result.note_files("XML files in no list of the splits", unlisted)
    shared = set(splits.get("train", ())) & set(splits.get("val", ()))
    if shared:
        result.notes.append(
            f"{len(shared):,} images are in the lists of both train and val: {min(shared).stem}"
            f"{', ...' if len(shared) > 1 else ''}"
        )
    return splits


def _folder_split(root: Path, path: Path) -> str:
    for part in reversed(path.parent.relative_to(root).parts):
        if split := split_of(part.lower()):
            return split
    return "train"


def _lists(result: LabeledSet, root: Path) -> dict[str, Path]:
    """Return the list of each split, "trainval" among them, of ``ImageSets/`` or the folder."""
    lists: dict[Path, dict[str, Path]] = {}
    for path in files_below(root):
        parts = path.relative_to(root).parts
        word = path.stem.lower()
        split = "trainval" if word in _TRAINVAL else split_of(word)
        known = len(parts) == 1 or (len(parts) <= 3 and parts[0].lower() == "imagesets")
        if path.suffix.lower() == ".txt" and split and known:
            result.inside(path, str(path))
            lists.setdefault(path.parent, {}).setdefault(split, path)
    for kind in _KINDS:
        for parent, found in lists.items():
            if parent.name.lower() == (kind or "imagesets"):
                return found
    found = lists.get(root, {})
    # All images of a list in the folder itself may be a YOLO set's, or a list of classes.
    return found if "train" in found or "val" in found else {}


def _listed_splits(
    result: LabeledSet, lists: dict[str, Path], files: list[Path]
) -> dict[str, list[Path]] | None:
    """Return the XML files of each split; None if no list is about them."""
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.stem, []).append(path)
    lists = {
        split: lists[split] for split in ("trainval", "train", "val", "test") if split in lists
    }
    named = {split: list(_listed(path, by_stem)) for split, path in lists.items()}
    if not any(xml for entries in named.values() for _, xml in entries):
        return None
    splits: dict[str, list[Path]] = {}
    for split, entries in named.items():
        if split == "trainval" and "train" in named:
            continue
        found = dict.fromkeys(xml for _, xml in entries if xml is not None)
        if split == "test" and not found:
            result.notes.append(f"{lists[split]}: its images have no annotations and are left out")
            continue
        for where, xml in entries:
            if xml is None:
                with result.collecting():
                    raise BotvisionError(f"{where}, got no such file")
        repeated = sum(xml is not None for _, xml in entries) - len(found)
        if repeated:
            result.notes.append(f"{lists[split]}: {repeated:,} lines repeat others")
        splits["train" if split == "trainval" else split] = list(found)
    if "train" not in named and "val" in splits and "train" in splits:
        held_out = set(splits["val"])
        splits["train"] = [xml for xml in splits["train"] if xml not in held_out]
    return splits


def _listed(path: Path, by_stem: dict[str, list[Path]]) -> Iterator[tuple[str, Path | None]]:
    """Yield of each line what is expected and the XML file, None if there is none."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if text := line.strip():
            where = f"{path}: line {number}: expected an XML file {text.split()[0]}.xml"
            yield where, _find(text, by_stem)


def _find(text: str, by_stem: dict[str, list[Path]]) -> Path | None:
    """Return the XML file that a line means: a name, maybe with a flag, suffix, folder or space."""
    for name in (text, re.sub(r"\s+-?[01]$", "", text), *text.split()):
        path = PurePosixPath(PureWindowsPath(name).as_posix())
        suffixed = path.suffix.lower() == ".xml" or is_image_name(path)
        found = by_stem.get(path.stem if suffixed else path.name, [])
        folders = path.parent.parts
        inner = [xml for xml in found if folders and xml.parent.parts[-len(folders) :] == folders]
        if len(inner) == 1 or len(found) == 1:
            return (inner or found)[0]
    return None
