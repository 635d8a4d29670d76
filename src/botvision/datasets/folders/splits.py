"""Images of class folders and of tar files, with the names of their classes."""

import glob
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets

from botvision.datasets.folders.tar_files import tar_images
from botvision.errors import BotvisionError
from botvision.images.decode import IMAGE_SUFFIXES, decode_image, read_image

_SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "test"),
}
_LAST_NUMBER = re.compile(r"\d+$")
_READERS = ("hfids", "tfds", "torch", "wds")


@dataclass(frozen=True, slots=True)
class ClassImage:
    """An image and its class.

    Attributes:
        name: Path inside the split, with "/".
        file: The image's file, or the tar file that holds it.
        span: Where in the tar file it begins, and its bytes; None: the file is the image.
    """

    name: str
    file: str
    span: tuple[int, int] | None = None

    @property
    def class_name(self) -> str:
        """Name of the folder that the image is in."""
        return self.name.rpartition("/")[0].rpartition("/")[2]

    def read(self) -> Image.Image:
        """The image as upright RGB.

        Raises:
            BotvisionError: If it cannot be read.
        """
        if self.span is None:
            return read_image(Path(self.file))
        return decode_image(io.BytesIO(self.content()), f"{self.file}: {self.name}")

    def content(self) -> bytes:
        """Bytes of the image's file.

        Raises:
            BotvisionError: If it cannot be read.
        """
        start, size = self.span or (0, -1)
        # No open archive is kept: forked workers would share its place in the file.
        try:
            with Path(self.file).open("rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise BotvisionError(f"{self.file}: {error.strerror}") from error


def split_words(split: str) -> tuple[str, ...]:
    """What a split may be called, the name that was asked for first."""
    return _SYNONYMS.get(split, (split,))


def find_split(folder: str, split: str) -> Path:
    """The class folders, the tar file or the WebDataset shards of a split.

    Args:
        folder: Holds ``<split>/<class>/*.jpg``; or ``<split>.tar``, whose name may say more, as
            "cifar10-train.tar"; or folders ``<split>`` of tar files; or shards, whose names
            differ in a number at their end, as "imagenet1k-train-0000.tar".
        split: "train" and "val" are also found under the other usual names, "test" among them.

    Returns:
        The folder or the file; of shards their folder and a pattern, as "train-*.tar".

    Raises:
        BotvisionError: If there is none or more than one.
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
    words = split_words(split)
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


def find_images(path: Path) -> list[ClassImage]:
    """The images of a split, sorted by name.

    Each is of the class that its innermost folder is named after, as timm has it; a tar file in a
    tar file or among others is a folder. What begins with a dot is left out.

    Args:
        path: As ``find_split`` gives it.

    Raises:
        BotvisionError: If there are none, a folder of a class is empty, an image is in no folder,
            or an archive cannot be read.
    """
    if path.is_dir():
        images = [*_in_folder(path)]
    else:
        archives = [path] if path.is_file() else sorted(path.parent.glob(path.name))
        images = [image for archive in archives for image in _archived(archive, "")]
    images = [image for image in images if not _hidden(image.name)]
    if not images:
        raise BotvisionError(f"{path}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    for image in images:
        if not image.class_name:
            raise BotvisionError(
                f"{path}: {image.name}: expected images in a folder for each class, got one in none"
            )
    if path.is_dir():
        _check_folders(path, images)
    return sorted(images, key=lambda image: image.name)


def _in_folder(path: Path) -> Iterator[ClassImage]:
    files, _ = find_images_and_targets(str(path), types=IMAGE_SUFFIXES)
    for file, _ in files:
        yield ClassImage(os.path.relpath(file, path).replace(os.sep, "/"), file)
    if not files:
        for archive in sorted(path.glob("*.tar")):
            yield from _archived(archive, f"{archive.stem}/")


def _archived(path: Path, folder: str) -> Iterator[ClassImage]:
    for member in tar_images(path, folder):
        yield ClassImage(member.name, str(path), (member.start, member.size))


def _hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name


def _check_folders(path: Path, images: list[ClassImage]) -> None:
    begun = {image.name.partition("/")[0] for image in images}
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and folder.name not in begun and not _hidden(folder.name):
            raise BotvisionError(
                f"{folder}: the folder of a class holds no images; add some or remove it"
            )
