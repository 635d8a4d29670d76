"""Images of each split of a YOLO folder: of data.yaml, Darknet's obj.data, lists or folders."""

import contextlib
import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from botvision.datasets.formats.labeled_sets import LabeledSet, read_text
from botvision.datasets.layouts import TEXTS, is_yolo_label, split_of
from botvision.errors import BotvisionError
from botvision.images.find import files_below, image_files, is_image_name, is_leftover
from botvision.images.written_paths import find_written

_WORDS = ("train", "training", "val", "valid", "validation", "test")


@dataclass
class YoloImages:
    """Images of each split of a YOLO folder.

    Args:
        result: Data set that receives notes and faults.

    Attributes:
        splits: Image files of each split, each once.
    """

    result: LabeledSet
    splits: dict[str, list[Path]] = field(default_factory=dict)

    def add_named(self, path: Path, content: Mapping[str, Any], base: Path) -> None:
        """Add the splits that data.yaml or obj.data names: folders, lists and images.

        Tools name the splits that were not exported, too, so that only "train" must be there.

        Args:
            path: File that names them.
            content: Its keys and values.
            base: Folder that relative paths start from.

        Raises:
            BotvisionError: If no split is named, or the training images are not there.
        """
        entries = {str(key).lower(): value for key, value in content.items() if value}
        words = [word for word in _WORDS if word in entries]
        if not words:
            raise BotvisionError(f"{path}: expected train and val with image folders, got neither")
        for word in words:
            value = entries[word]
            split = split_of(word)
            if split is None or split in self.splits:
                continue
            where, faulty = f"{path}: {word}", self.result.faulty_images
            named = value if isinstance(value, list) else [value]
            images = [p for each in named for p in self._entry(str(each), base, where, split)]
            if images:
                self._add(split, images)
            elif faulty == self.result.faulty_images and split == "train":
                raise BotvisionError(f"{where}: expected images, got none in {value}")

    def add_lists(self) -> bool:
        """Add the splits of train.txt, val.txt and test.txt; return whether there are any."""
        for path in files_below(self.result.root, TEXTS):
            split = split_of(path.stem.lower())
            if split and split not in self.splits and _is_list(path):
                self._add(split, list(self._listed(path, self.result.root)))
        return bool(self.splits)

    def add_folders(self) -> None:
        """Add all images below the folder; the names of their folders tell the splits.

        Raises:
            BotvisionError: If there are none.
        """
        root = self.result.root
        images = [path for path in set_files(root) if is_image_name(path)]
        inside = [p for p in images if "images" in _folders(p, root)]
        found: dict[str | None, list[Path]] = {}
        for path in inside or images:
            split = next(filter(None, map(_split_of_folder, _folders(path, root))), None)
            found.setdefault(split, []).append(path)
        if not found:
            raise BotvisionError(f"{root / 'images'}: expected images, got none")
        rest = found.pop(None, [])
        if rest:
            found.setdefault("train", rest)
        for split in sorted(filter(None, found), key=("train", "val", "test").index):
            self._add(split, found[split])

    def _add(self, split: str, images: list[Path]) -> None:
        unique = list(dict.fromkeys(images))
        if len(unique) < len(images):
            self.result.notes.append(
                f"{split}: {len(images) - len(unique):,} of {len(images):,} entries name an image "
                "again, and are left out"
            )
        for other, known in self.splits.items():
            if both := len(set(known).intersection(unique)):
                self.result.notes.append(
                    f"{both:,} of the {len(unique):,} images of {split} are in {other}, too: what "
                    "is measured on them says nothing about new images"
                )
        self.splits[split] = unique

    def _entry(self, written: str, base: Path, where: str, split: str) -> list[Path]:
        """Return the images of a folder or list; none where a split was not exported."""
        root = self.result.root
        source = _meant(written, (base, root), root)
        if source is None and (matches := _matching(written, (base, root))):
            self.result.notes.append(f"{where}: {written} matches {len(matches):,} paths")
            return [p for each in matches for p in self._images_of(each, base, where)]
        if source is None:
            if split == "train" or _leads_out(written, base, root):
                self.result.find(written, base, where, "an image folder or a list,")
                raise BotvisionError(f"{where}: expected an image folder or a list, got {written}")
            self.result.notes.append(f"{where}: {written} is not there: no such split")
            return []
        if cut_off(written, source):
            taken = source.relative_to(root).as_posix()
            self.result.notes.append(f"{where}: {written} is taken as {taken}")
        images = self._images_of(source, base, where)
        if not images and split != "train":
            self.result.notes.append(f"{where}: {written} holds no images: no such split")
        return images

    def _images_of(self, source: Path, base: Path, where: str) -> list[Path]:
        """Return the images of a folder or list, or the image itself."""
        self.result.inside(source, where)
        if source.is_dir():
            return list(image_files(source))
        if source.suffix.lower() == ".txt":
            return list(self._listed(source, base))
        return [source]

    def _listed(self, path: Path, base: Path) -> Iterator[Path]:
        """Yield the images that a list names; those that are not there are faults."""
        root, moved = self.result.root, []
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            written, where = line.strip().strip('"'), f"{path}: line {number}"
            if not written:
                continue
            image = _meant(written, (path.parent, base, root), root)
            if image is None:
                with self.result.collecting():
                    image = self.result.find(written, path.parent, where)
            if image is None:
                continue
            if cut_off(written, image):
                moved.append((written, image.relative_to(root).as_posix()))
            yield image
        if moved:
            self.result.notes.append(
                f"{path}: {len(moved):,} paths of another folder or computer are taken by their "
                f"ends: {moved[0][0]} as {moved[0][1]}"
            )


def set_files(root: Path) -> Iterator[Path]:
    """Yield the files of a data set that are no leftovers; its own folders may be links."""
    for path in sorted(root.iterdir()):
        if is_leftover(path.name):
            continue
        if path.is_dir():
            yield from files_below(path)
        elif path.is_file():
            yield path


def cut_off(written: str, found: Path) -> list[str]:
    """Return the first parts of a written path that the path found does not end with."""
    parts = [part for part in _parts(written) if part != "."]
    own = list(found.parts)
    while parts and own and parts[-1] == own[-1]:
        parts.pop()
        own.pop()
    return parts if own else []


def _meant(written: str, folders: Sequence[Path], root: Path) -> Path | None:
    """Return the file or folder that an entry means, as written or by the end of its path."""
    for folder in folders:
        found = find_written(written, folder, root)
        if found is not None and not _loses_split(written, found):
            return Path(os.path.normpath(found)) if ".." in found.parts else found
    # Roboflow writes ../train/images for what is beside data.yaml, CVAT and Darknet data/train.txt.
    parts = [part for part in _parts(written) if part not in ("..", ".")]
    if not parts or PurePosixPath(parts[0]).is_absolute() or PureWindowsPath(parts[0]).drive:
        return None
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        # A bare name is looked for where names are, not in the whole data set.
        for folder in folders if start < len(parts) - 1 else folders[:1]:
            found = find_written(end, folder, root)
            if found is not None and not _loses_split(written, found):
                return found
    return None


def _matching(written: str, folders: Sequence[Path]) -> list[Path]:
    """Return folders, lists and images that a pattern means, as written or by its end."""
    parts = [part for part in _parts(written) if part not in ("..", ".")]
    if not glob.has_magic(written):
        return []
    for start in range(len(parts)):
        # A bare pattern would match much that is not meant, unless it was written so.
        if start and start == len(parts) - 1:
            break
        pattern = "/".join(parts[start:])
        if PurePosixPath(pattern).is_absolute() or PureWindowsPath(pattern).drive:
            continue
        if start and split_of(parts[start - 1].lower()):
            break  # see _loses_split
        for folder in folders:
            own: list[Path] = []
            with contextlib.suppress(ValueError):  # "**" beside letters
                own = sorted(folder.glob(pattern))
            own = [path for path in own if not is_leftover(path.relative_to(folder))]
            found = [p for p in own if p.is_dir() or is_image_name(p) or p.suffix.lower() == ".txt"]
            if found:
                return found
    return []


def _loses_split(written: str, found: Path) -> bool:
    """Return whether train/images would be taken as images, which holds the other splits too."""
    dropped = cut_off(written, found)
    return bool(dropped) and split_of(dropped[-1].lower()) is not None


def _leads_out(written: str, base: Path, root: Path) -> bool:
    """Return whether a path names a file or folder of this computer outside the data set."""
    path = base / PureWindowsPath(written).as_posix()
    return path.exists() and not path.resolve().is_relative_to(root.resolve())


def _parts(written: str) -> tuple[str, ...]:
    return PurePosixPath(PureWindowsPath(written).as_posix()).parts


def _folders(path: Path, root: Path) -> list[str]:
    return [part.lower() for part in path.relative_to(root).parts[:-1]]


def _split_of_folder(name: str) -> str | None:
    """Return the split of a folder such as "train", "val2017" or CVAT's "obj_Train_data"."""
    match = re.fullmatch(r"(?:obj_)?([a-z]+?)(?:_data)?\d*", name)
    return split_of(match[1]) if match else None


def _is_list(path: Path) -> bool:
    first = next((line for line in read_text(path).split("\n") if line.strip()), "")
    return is_image_name(first.strip()) and not is_yolo_label(path)
