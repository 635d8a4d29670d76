"""Where the images of a data set are: in a folder, or in shards."""

import bisect
import io
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from botvision.datasets.coco.store import Texts
from botvision.errors import BotvisionError
from botvision.images.decode import decode_image, read_image
from botvision.shards.files import ShardFiles
from botvision.shards.index import INDEX, is_sharded, read_index


class ImageSource(Protocol):
    """Images by the ``file_name`` of their records.

    Attributes:
        folder: Where they are.
    """

    folder: Path

    @property
    def files(self) -> ShardFiles | None:
        """The shards that they are in; None: they are in none."""

    def inside(self, name: str) -> bool:
        """Whether the name is that of a place among these images."""

    def missing(self, name: str) -> str:
        """What shows, without reading the image, that it is not there; empty if it is."""

    def where(self, name: str) -> str:
        """What messages call the image."""

    def read(self, name: str) -> Image.Image:
        """The image as upright RGB; see ``read_image``."""

    def content(self, name: str) -> bytes:
        """Bytes of the image's file."""

    def shard(self, name: str) -> int:
        """Number of the shard that the image is in; 0 if it is in none."""


def open_images(folder: Path) -> ImageSource:
    """The images of a folder.

    Raises:
        BotvisionError: If they are in shards whose index is damaged.
    """
    return ShardedImages(folder) if is_sharded(folder) else FolderImages(folder)


class FolderImages:
    """Images that are files of a folder and its subfolders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: ShardFiles | None = None
        self._root = folder.resolve()

    def inside(self, name: str) -> bool:
        """Whether the name, and what it links to, is a path inside the folder."""
        try:
            return (self.folder / name).resolve().is_relative_to(self._root)
        except (OSError, ValueError, RuntimeError):  # a circle of links, or no name of a file
            return False

    def missing(self, name: str) -> str:
        """What shows, without reading the image, that it is not there; empty if it is."""
        path = self.folder / name
        try:
            if not path.is_file():
                return "no such image"
            return "" if path.stat().st_size else "expected an image, got a file of zero bytes"
        except (OSError, ValueError) as error:
            return f"cannot be read ({error})"

    def where(self, name: str) -> str:
        """Path of the image."""
        return str(self.folder / name)

    def read(self, name: str) -> Image.Image:
        """The image as upright RGB; see ``read_image``."""
        return read_image(self.folder / name)

    def content(self, name: str) -> bytes:
        """Bytes of the image's file."""
        return (self.folder / name).read_bytes()

    def shard(self, name: str) -> int:  # noqa: ARG002 - of the protocol
        """0: it is in none."""
        return 0


class ShardedImages:
    """Images of shards, in arrays that data workers share.

    Raises:
        BotvisionError: If the index is damaged.
    """

    def __init__(self, folder: Path) -> None:
        shards = read_index(folder)
        self.folder = folder
        self._index = folder / INDEX
        self.files = ShardFiles(folder, shards)
        self._shard_names = [shard.name for shard in shards]
        rows = sorted(
            (name.encode("utf-8", "surrogatepass"), number, start, size)
            for number, shard in enumerate(shards)
            for name, start, size in shard.images
        )
        self._names = Texts(Texts.pack("names", [row[0] for row in rows]), "names")
        self._places: Any = np.array([row[1:] for row in rows], np.int64)

    def inside(self, name: str) -> bool:  # noqa: ARG002 - of the protocol
        """True: names of shards lead nowhere else."""
        return True

    def missing(self, name: str) -> str:
        """What shows, without reading the image, that it is not there; empty if it is."""
        found = self._place(name)
        if found is None:
            return f"no such image in {self._index}"
        return "" if found[2] else "expected an image, got a file of zero bytes"

    def where(self, name: str) -> str:
        """The shard's path, and the name."""
        found = self._place(name)
        file = self._index.name if found is None else self._shard_names[found[0]]
        return f"{self._index.parent / file}: {name}"

    def read(self, name: str) -> Image.Image:
        """The image as upright RGB; see ``read_image``."""
        return decode_image(io.BytesIO(self.content(name)), self.where(name))

    def content(self, name: str) -> bytes:
        """Bytes of the image's file."""
        found = self._place(name)
        if found is None:
            raise BotvisionError(f"{self.where(name)}: {self.missing(name)}")
        return self.files.read(*found)

    def shard(self, name: str) -> int:
        """Number of the shard that the image is in; 0 if it is in none."""
        found = self._place(name)
        return 0 if found is None else found[0]

    def _place(self, name: str) -> tuple[int, int, int] | None:
        """Number of its shard, where in it the image begins, and its bytes."""
        key = name.encode("utf-8", "surrogatepass")
        row = bisect.bisect_left(self._names, key)
        if row == len(self._names) or self._names[row] != key:
            return None
        number, start, size = self._places[row].tolist()
        return number, start, size
