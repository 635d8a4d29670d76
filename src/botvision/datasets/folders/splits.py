"""Splits of classification data: finding them, their images and their classes."""

import glob
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import torch
from timm.utils import natural_key
from torch import Tensor

from botvision.datasets.folders.tar_files import tar_shard
from botvision.datasets.layouts import SPLIT_WORDS
from botvision.errors import BotvisionError
from botvision.images.find import (
    IMAGE_SUFFIXES,
    is_image_name,
    is_leftover,
    left_out_note,
    left_out_reason,
)
from botvision.shards.read import FolderImages, ImageSource, ShardedImages, open_images
from botvision.texts import Names

_LAST_NUMBER = re.compile(r"\d+$")
_READERS = ("hfids", "tfds", "torch", "wds")


class LabeledImages:
    """The images of a split and their classes.

    Args:
        source: Path or address of the split, for messages.
        images: Source of the images.
        names: Names of the images; at least one.
        image_classes: Name of each image's class.
        classes: Names of the classes in order, including any without images; None sorts them, see
            ``in_order``.
        shards: Number of each image's shard, int64 [n]; None without indexed shards.
        left_out: Number of other files in class folders, by suffix, see ``left_out_reason``.

    Attributes:
        labels: Index of each image's class in ``classes``, int64 [n].
        classes: Names of the classes that have images.
    """

    def __init__(
        self,
        source: str,
        images: ImageSource,
        names: Sequence[str],
        image_classes: Sequence[str],
        *,
        classes: Iterable[str] | None = None,
        shards: Tensor | None = None,
        left_out: Counter[str] | None = None,
    ) -> None:
        self.left_out = Counter() if left_out is None else left_out
        self.source, self.images, self.names, self.shards = source, images, names, shards
        used = set(image_classes)
        self.classes = tuple(
            in_order(used) if classes is None else (name for name in classes if name in used)
        )
        index = {name: label for label, name in enumerate(self.classes)}
        self.labels = torch.tensor([index[name] for name in image_classes])


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of classes in timm's order: numbers by value, letters in any case."""
    # timm leaves the order of "1" and "01" or "cat" and "Cat" to the hashes of the process.
    return tuple(sorted(set(names), key=lambda name: (natural_key(name), name)))


def find_split(folder: str, split: str) -> Path:
    """Return the class folders, the tar file or the WebDataset shards of a split.

    Args:
        folder: Folder with ``<split>/<class>/*.jpg``; or with ``<split>.tar``, whose name may say
            more, as "cifar10-train.tar"; or with folders ``<split>`` of tar files; or with shards
            whose names end in a number, as "imagenet1k-train-0000.tar".
        split: Name of the split; "train" and "val" also match their other usual names, "test"
            among those of "val".

    Returns:
        Path of the folder or file; for shards a pattern in their folder, as "train-*.tar".

    Raises:
        BotvisionError: If there is no such split, or more than one.
    """
    root = Path(folder)
    if not root.is_dir():
        if folder.split("/")[0] in _READERS or folder.startswith("pipe:"):
            raise BotvisionError(
                f"data.folder: {folder}: streams and data sets by timm's names are not read; copy "
                "the data to a folder, as class folders, tar files or WebDataset shards"
            )
        inside = f"; give its folder {root.parent}" if root.suffix == ".tar" else ""
        raise BotvisionError(f"data.folder: {folder}: expected a folder{inside}")
    words = SPLIT_WORDS.get(split, (split,))
    for word in words:
        if (root / word).is_dir():
            return root / word
    archives = sorted(root.glob("*.tar"))
    for word in words:
        whole_word = re.compile(rf"(?<![a-z]){re.escape(word)}(?![a-z])", re.IGNORECASE)
        found = [path for path in archives if whole_word.search(path.stem)]
        shards = {_LAST_NUMBER.sub("*", glob.escape(path.stem)) for path in found}
        if len(found) > 1 and len(shards) == 1:
            return root / f"{shards.pop()}.tar"
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise BotvisionError(f"{folder}: expected one tar file of {split!r}, got {names}")
        if found:
            return found[0]
    raise BotvisionError(
        f"{folder}: no split {split!r}: expected {split}/<class>/*.jpg or {split}.tar"
    )


def read_split(path: Path) -> LabeledImages:
    """Return the images of a split, sorted by name, or in the order of the shards' index.

    The class of an image is the folder of the split that it lies in, however deep below it, as in
    torchvision's ImageFolder. In tar files it is the innermost folder, as in timm; a tar file that
    is in another one, or one of several, counts as a folder. Hidden files are left out.

    Args:
        path: Split as returned by ``find_split``.

    Raises:
        BotvisionError: If there are no images, the folder of a class is empty, an image is not in
            a folder, or an archive or index cannot be read.
    """
    images = open_images(path)
    names: Sequence[str]
    left_out: Counter[str] = Counter()
    if isinstance(images, ShardedImages):
        names, shards = images.names, torch.from_numpy(images.numbers)
    else:
        found: list[str] = []
        if path.is_dir():
            found, left_out = _files_below(path)
        if not found:
            images, found = _tar_images(path)
        names, shards = Names(sorted(name for name in found if not is_leftover(name))), None
    said = left_out_note(left_out)
    if not names:
        raise BotvisionError(
            f"{path}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
            + (f"; {said}" if said else "")
        )
    if isinstance(images, FolderImages):
        classes = [name.partition("/")[0] if "/" in name else "" for name in names]
    else:
        classes = [posixpath.basename(posixpath.dirname(name)) for name in names]
    if "" in classes:
        raise BotvisionError(
            f"{path}: {names[classes.index('')]}: expected images in a folder for each class, got "
            "one in none"
        )
    begun = {name.partition("/")[0] for name in names}
    for folder in sorted(path.iterdir()) if shards is None and path.is_dir() else ():
        if folder.is_dir() and folder.name not in begun and not is_leftover(folder.name):
            raise BotvisionError(
                f"{folder}: the folder of a class holds no images; add some or remove it"
                + (f" ({said})" if said else "")
            )
    return LabeledImages(str(path), images, names, classes, shards=shards, left_out=left_out)


def _files_below(folder: Path) -> tuple[list[str], Counter[str]]:
    """Return the images of a folder by their paths in it, and the number of other files by suffix.

    Links are followed. Hidden files and leftovers of systems are neither.
    """
    found: list[str] = []
    left_out: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_leftover(name)]
        inner = os.path.relpath(parent, folder).replace(os.sep, "/")
        prefix = "" if inner == "." else f"{inner}/"
        for name in names:
            if is_image_name(name):
                found.append(prefix + name)
            elif not is_leftover(name):
                left_out[left_out_reason(name)] += 1
    return found, left_out


def _tar_images(path: Path) -> tuple[ImageSource, list[str]]:
    """Images of a tar file, of those that match a pattern, or of those in a folder."""
    if path.is_dir():
        found = [tar_shard(each, f"{each.stem}/") for each in sorted(path.glob("*.tar"))]
    else:
        archives = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        found = [tar_shard(each) for each in archives]
    seen: set[str] = set()
    shards = []
    for shard in found:
        images = []
        for name, start, size in shard.images:
            while name in seen:  # in another archive, or a second time in this one
                name = f"{Path(shard.name).stem}/{name}"
            seen.add(name)
            images.append((name, start, size))
        shards.append(msgspec.structs.replace(shard, images=images))
    folder = path if path.is_dir() else path.parent
    return ShardedImages(folder, shards), list(seen)
