"""Reading images out of shards, which are fetched when they are first needed."""

import bisect
import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from botvision.errors import BotvisionError
from botvision.files import cache_folder, locked
from botvision.images.sources import FolderImages, ImageSource
from botvision.shards.fetch import fetch
from botvision.shards.index import INDEX, Shard, is_sharded, read_index
from botvision.texts import Names

ORIGIN = "origin.txt"
"""File beside the index of fetched shards; holds the address of their folder."""

_LIMIT_VARIABLE = "BOTVISION_CACHE_GIB"
_ATTEMPTS = 10


def open_images(folder: Path) -> ImageSource:
    """Return the images of a folder, which are files of it or in its shards.

    Raises:
        BotvisionError: If the index of the shards is damaged.
    """
    return ShardedImages(folder, read_index(folder)) if is_sharded(folder) else FolderImages(folder)


class ShardError(BotvisionError):
    """A shard is missing, cut short or cannot be fetched; its images may be sound."""


class ShardFiles:
    """The shard files of a folder.

    Args:
        folder: Folder of the shards; missing ones are fetched only if ``open_data_folder`` made it.
        shards: Shards of the folder.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder = folder
        self._shards = [(shard.name, shard.size, shard.sha256) for shard in shards]
        self._origin = _origin(folder)

    def path(self, number: int) -> Path:
        """Return the path of a shard, which may not have been fetched yet."""
        return self._folder / self._shards[number][0]

    def read(self, number: int, start: int, size: int) -> bytes:
        """Return bytes of a shard.

        Args:
            number: Number of the shard.
            start: Offset of the first byte.
            size: Number of bytes.

        Raises:
            ShardError: If the shard is missing, cannot be fetched or is cut short.
        """
        path = self.path(number)
        for _ in range(_ATTEMPTS):
            try:
                # Opened each time: forked workers would share the position in an open file.
                with path.open("rb") as file:
                    file.seek(start)
                    content = file.read(size)
                    if self._origin is not None:
                        os.utime(file.fileno())  # the least recently read shard is removed first
                break
            except FileNotFoundError:
                if self._origin is None:
                    raise ShardError(f"{path}: no such shard; put it back") from None
                # It may have been here: another process may have needed the room.
                self.fetch(number)
            except OSError as error:
                raise ShardError(f"{path}: {error.strerror}") from error
        else:
            raise ShardError(f"{path}: removed as soon as it is fetched; raise {_LIMIT_VARIABLE}")
        if len(content) < size:
            whole = self._shards[number][1]
            raise ShardError(f"{path}: expected {whole:,} bytes, got fewer; put it back whole")
        return content

    @property
    def fetched(self) -> bool:
        """Whether the shards come from an address."""
        return self._origin is not None

    def room(self) -> float:
        """Return how many shards the cache may hold; infinite without a limit.

        Raises:
            BotvisionError: If the user's limit is not a positive number.
        """
        limit = _limit()
        largest = max(size for _, size, _ in self._shards)
        return math.inf if limit is None else limit / largest

    def fetch(self, number: int) -> None:
        """Fetch a shard unless it is here.

        Raises:
            ShardError: If it cannot be fetched.
        """
        name, size, sha256 = self._shards[number]
        path = self.path(number)
        try:
            with locked(path.with_suffix(".lock")):
                if path.exists():
                    os.utime(path)  # it is about to be read
                    return
                fetch(f"{self._origin}/{name}", path, size=size, checksum=f"sha256:{sha256}")
                _make_room(path)
        except BotvisionError as error:
            raise ShardError(str(error)) from error
        except OSError as error:
            raise ShardError(f"{path}: {error.strerror}") from error


class ShardedImages(ImageSource):
    """Images of shards, in about 40 bytes each beside their names.

    Args:
        folder: Folder of the shards.
        shards: Shards of the folder; no two of their images have the same name.

    Attributes:
        files: The shard files.
        names: Names of the images, in the order of the shards.
        numbers: Number of each image's shard, int64 [n].
    """

    files: ShardFiles

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        super().__init__(folder)
        self.files = ShardFiles(folder, shards)
        names = [name for shard in shards for name, _, _ in shard.images]
        self.names = Names(names)
        self._order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
        spans = [
            (number, start, size)
            for number, shard in enumerate(shards)
            for _, start, size in shard.images
        ]
        self._spans = np.array(spans, np.int64).reshape(-1, 3)
        self._index = Path(folder, INDEX)

    @property
    def numbers(self) -> Any:
        """Number of each image's shard, int64 [n]."""
        return self._spans[:, 0]

    def where(self, name: str) -> str:
        """Return the path of the shard and the name of the image."""
        span = self._span(name)
        return f"{self._index if span is None else self.files.path(span[0])}: {name}"

    def content(self, name: str) -> bytes:
        """Return the bytes of an image file.

        Raises:
            ShardError: If the shard is missing, cannot be fetched or is cut short.
            BotvisionError: If there is no such image.
        """
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


def mirrors() -> Path:
    """Return the folder of the data sets that come from addresses.

    Raises:
        BotvisionError: If there is no cache folder.
    """
    folder = cache_folder()
    if folder is None:
        raise BotvisionError("no folder for a cache: set BOTVISION_CACHE to one with enough space")
    return folder / "shards"


def _origin(folder: Path) -> str | None:
    """Address that the shards of a folder come from, if they do."""
    # A folder from somebody else must not send the program to addresses of theirs.
    cache = cache_folder()
    if cache is None or not folder.is_relative_to(cache / "shards"):
        return None
    path = folder / ORIGIN
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _make_room(fetched: Path) -> None:
    """Remove the least recently read shards until the rest fit into the limit."""
    limit = _limit()
    if limit is None:
        return
    found = []
    for path in mirrors().rglob("[!.]*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room, too
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            break
        if path != fetched:
            path.unlink(missing_ok=True)
            total -= size


def _limit() -> float | None:
    text = os.environ.get(_LIMIT_VARIABLE)
    if text is None:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise BotvisionError(f"{_LIMIT_VARIABLE}: expected a number of GiB, got {text!r}")
    return limit * 2**30
