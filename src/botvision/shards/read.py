"""Reading images by name: files of a folder, or parts of shards that are fetched when needed."""

import bisect
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from botvision.errors import BotvisionError
from botvision.files import locked
from botvision.images.decode import decode_image, read_image
from botvision.images.written_paths import find_written, similar_name
from botvision.shards.fetch import fetch
from botvision.shards.index import INDEX, Shard, is_sharded, read_index
from botvision.shards.mirror import LIMIT_VARIABLE, cache_limit, make_room, origin_of
from botvision.texts import Names

_ATTEMPTS = 10


class ShardError(BotvisionError):
    """A shard is missing, cut short or cannot be fetched; its images may be sound."""


class ShardFiles:
    """The shard files of a folder.

    Args:
        folder: Folder of the shards; missing ones are fetched only if ``open_data_folder`` made it.
        shards: Shards of the folder.

    Attributes:
        paths: Paths of the shards, which may not have been fetched yet.
        fetched: Whether the shards come from an address.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.paths = [folder / shard.name for shard in shards]
        self._digests = [(shard.size, shard.sha256) for shard in shards]
        self._origin = origin_of(folder)
        self.fetched = self._origin is not None

    def read(self, number: int, start: int, size: int) -> bytes:
        """Return bytes of a shard.

        Args:
            number: Number of the shard.
            start: Offset of the first byte.
            size: Number of bytes.

        Raises:
            ShardError: If the shard is missing, cannot be fetched or is cut short.
        """
        path = self.paths[number]
        for _ in range(_ATTEMPTS):
            try:
                # Opened each time: forked workers would share the position in an open file.
                with path.open("rb") as file:
                    file.seek(start)
                    content = file.read(size)
                    if self.fetched:
                        os.utime(file.fileno())  # the least recently read shard is removed first
                break
            except FileNotFoundError:
                if not self.fetched:
                    raise ShardError(f"{path}: no such shard; put it back") from None
                # It may have been here: another process may have needed the room.
                self.fetch(number)
            except OSError as error:
                raise ShardError(f"{path}: {error.strerror}") from error
        else:
            raise ShardError(f"{path}: removed as soon as it is fetched; raise {LIMIT_VARIABLE}")
        if len(content) < size:
            whole, _ = self._digests[number]
            raise ShardError(f"{path}: expected {whole:,} bytes, got fewer; put it back whole")
        return content

    def room(self) -> float:
        """Return how many shards the cache may hold; infinite without a limit.

        Raises:
            BotvisionError: If the user's limit is not a positive number.
        """
        return cache_limit() / max(size for size, _ in self._digests)

    def fetch(self, number: int) -> None:
        """Fetch a shard unless it is here.

        Raises:
            ShardError: If it cannot be fetched.
        """
        path, (size, sha256) = self.paths[number], self._digests[number]
        try:
            with locked(path.with_suffix(".lock")):
                if path.exists():
                    os.utime(path)  # it is about to be read
                    return
                fetch(f"{self._origin}/{path.name}", path, size=size, checksum=f"sha256:{sha256}")
                make_room(path)
        except BotvisionError as error:
            raise ShardError(str(error)) from error
        except OSError as error:
            raise ShardError(f"{path}: {error.strerror}") from error


class ImageSource(ABC):
    """Images by name; for COCO data the ``file_name`` of their records.

    Implementations are cheap to share with data-loading workers, and read in any order.

    Attributes:
        folder: Folder of the images, or another name of the source for messages.
        files: Shards that hold the images; None if the images are not in shards.
    """

    folder: Path | str
    files: ShardFiles | None = None

    @abstractmethod
    def where(self, name: str) -> str:
        """Return what messages call an image."""

    @abstractmethod
    def content(self, name: str) -> bytes:
        """Return the bytes of an image file.

        Raises:
            ShardError: If the shard is missing, cannot be fetched or is cut short.
            BotvisionError: If there is no such image, or it cannot be read.
        """

    def read(self, name: str) -> Image.Image:
        """Return an image as upright RGB, see ``read_image``.

        Raises:
            BotvisionError: If the image cannot be read or decoded.
        """
        return decode_image(io.BytesIO(self.content(name)), self.where(name))

    def inside(self, name: str) -> bool:  # noqa: ARG002 - for implementations
        """Return whether the name leads to no file outside the source."""
        return True

    def missing(self, name: str) -> str:  # noqa: ARG002 - for implementations
        """Return why the image is missing or empty, without reading it; "" if it is neither."""
        return ""

    def shard(self, name: str) -> int:  # noqa: ARG002 - for implementations
        """Return the number of the shard that holds the image; 0 without shards."""
        return 0


class FolderImages(ImageSource):
    """Image files of a folder and its subfolders.

    A name of which there is no file may be a path of Windows or of another computer; see
    ``find_written``.

    Args:
        folder: Folder that names are relative to.
    """

    folder: Path

    def __init__(self, folder: Path) -> None:
        self.folder, self._root = folder, folder.resolve()

    def where(self, name: str) -> str:
        """Return the path of an image."""
        return str(self._path(name))

    def content(self, name: str) -> bytes:
        """Return the bytes of an image file."""
        path = self._path(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise BotvisionError(f"{path}: {error.strerror}") from error

    def read(self, name: str) -> Image.Image:
        """Return an image as upright RGB, see ``read_image``."""
        return read_image(self._path(name))

    def inside(self, name: str) -> bool:
        """Return whether the name, and what it links to, is a path inside the folder."""
        try:
            return self._path(name).resolve().is_relative_to(self._root)
        except (OSError, ValueError, RuntimeError):  # a circle of links, or not a file name
            return False

    def missing(self, name: str) -> str:
        """Return why the image is missing or empty, without reading it; "" if it is neither."""
        path = self._path(name)
        try:
            if not path.is_file():
                similar = similar_name(path)
                return "no such image" + (f"; there is {similar}" if similar else "")
            return "" if path.stat().st_size else "expected an image, got a file of zero bytes"
        except (OSError, ValueError) as error:
            return f"cannot be read ({error})"

    def _path(self, name: str) -> Path:
        """Return the path of an image, as it is written if there is no such file."""
        path = self.folder / name
        try:
            if path.exists():
                return path
        except (OSError, ValueError):  # too long for the file system
            return path
        return find_written(name, self.folder, self.folder) or path


class ShardedImages(ImageSource):
    """Images of shards, in about 40 bytes each beside their names.

    Args:
        folder: Folder of the shards.
        shards: Shards of the folder; no two of their images have the same name.

    Attributes:
        names: Names of the images, in the order of the shards.
        numbers: Number of each image's shard, int64 [n].
    """

    files: ShardFiles

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.folder, self._index = folder, folder / INDEX
        self.files = ShardFiles(folder, shards)
        images = [(number, *image) for number, shard in enumerate(shards) for image in shard.images]
        names = [name for _, name, _, _ in images]
        self.names = Names(names)
        self._order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        spans = [(number, start, size) for number, _, start, size in images]
        self._spans = np.array(spans, np.int64).reshape(-1, 3)
        self.numbers = self._spans[:, 0]

    def where(self, name: str) -> str:
        """Return the path of the shard and the name of the image."""
        span = self._span(name)
        return f"{self._index if span is None else self.files.paths[span[0]]}: {name}"

    def content(self, name: str) -> bytes:
        """Return the bytes of an image file."""
        span = self._span(name)
        if span is None:
            raise BotvisionError(f"{self.where(name)}: {self.missing(name)}")
        return self.files.read(*span)

    def missing(self, name: str) -> str:
        """Return why the image is missing or empty, without reading it; "" if it is neither."""
        span = self._span(name)
        if span is None:
            return f"no such image in {self._index}"
        return "" if span[2] else "expected an image, got a file of zero bytes"

    def shard(self, name: str) -> int:
        """Return the number of the shard that holds the image; 0 if there is no such image."""
        span = self._span(name)
        return 0 if span is None else span[0]

    def _span(self, name: str) -> tuple[int, int, int] | None:
        """The shard of an image, its offset there and its bytes; None if there is no such image."""
        place = bisect.bisect_left(self._order, name, key=self.names.__getitem__)
        if place == len(self._order) or self.names[self._order[place]] != name:
            return None
        number, start, size = self._spans[self._order[place]].tolist()
        return number, start, size


def open_images(folder: Path) -> ImageSource:
    """Return the images of a folder, which are files of it or in its shards.

    Raises:
        BotvisionError: If the index of the shards is damaged.
    """
    return ShardedImages(folder, read_index(folder)) if is_sharded(folder) else FolderImages(folder)
