"""Reading out of shards, which are fetched from where they come from when they are asked for."""

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

from botvision.datasets.coco.cache import cache_folder
from botvision.errors import BotvisionError
from botvision.files import leftovers, locked
from botvision.shards.fetch import fetch
from botvision.shards.index import Shard

ORIGIN = "origin.txt"
"""Beside the index of shards that come from elsewhere: the address of their folder."""

_LIMIT_VARIABLE = "BOTVISION_CACHE_GIB"
_ATTEMPTS = 10


def mirrors() -> Path:
    """Where data sets that come from elsewhere are kept.

    Raises:
        BotvisionError: If there is no place for a cache.
    """
    folder = cache_folder()
    if folder is None:
        raise BotvisionError("no folder for a cache: set BOTVISION_CACHE to one with enough space")
    return folder / "shards"


class ShardError(BotvisionError):
    """A shard that is needed is not to be had; its images may well be sound."""


class ShardFiles:
    """The shards of a folder.

    Args:
        folder: Holds them; only one that ``open_data_folder`` made fetches those that it lacks.
        shards: From its index.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder = folder
        self._shards = [(shard.name, shard.size, shard.sha256) for shard in shards]
        self._origin = _origin(folder)

    def read(self, number: int, start: int, size: int) -> bytes:
        """Bytes of a shard.

        Args:
            number: Of the shard.
            start: Where they begin.
            size: How many.

        Raises:
            ShardError: If the shard is missing, cannot be fetched or is cut short.
        """
        name, whole, _ = self._shards[number]
        path = self._folder / name
        for _ in range(_ATTEMPTS):
            try:
                # Opened each time: forked workers would share an open file's place.
                with path.open("rb") as file:
                    file.seek(start)
                    content = file.read(size)
                    if self._origin is not None:
                        os.utime(file.fileno())  # what is oldest gives room first
                break
            except FileNotFoundError:
                if self._origin is None:
                    raise ShardError(f"{path}: no such shard; put it back") from None
                # Perhaps not for the first time: another process may have needed the room.
                self.fetch(number)
            except OSError as error:
                raise ShardError(f"{path}: {error.strerror}") from error
        else:
            raise ShardError(f"{path}: removed as soon as it is fetched; raise {_LIMIT_VARIABLE}")
        if len(content) < size:
            raise ShardError(f"{path}: expected {whole:,} bytes, got fewer; put it back whole")
        return content

    @property
    def fetched(self) -> bool:
        """Whether they come from elsewhere."""
        return self._origin is not None

    def room(self) -> float:
        """Number of shards that the cache may hold; infinite if it has no limit.

        Raises:
            BotvisionError: If what the user gave as limit is none.
        """
        limit = _limit()
        largest = max(size for _, size, _ in self._shards)
        return math.inf if limit is None else limit / largest

    def fetch(self, number: int) -> None:
        """Fetch a shard if it is not here.

        Raises:
            ShardError: If it cannot be fetched.
        """
        name, size, sha256 = self._shards[number]
        path = self._folder / name
        try:
            with locked(path.with_suffix(".lock")):
                if path.exists():
                    os.utime(path)  # it is about to be read
                    return
                for half in leftovers(path):  # of processes that were killed
                    half.unlink()
                fetch(f"{self._origin}/{name}", path, size=size, sha256=sha256)
                _make_room(path)
        except BotvisionError as error:
            raise ShardError(str(error)) from error
        except OSError as error:
            raise ShardError(f"{path}: {error.strerror}") from error


def _origin(folder: Path) -> str | None:
    """Where the shards of a folder come from; None: from nowhere else."""
    # A folder that came from somebody must not send the program to addresses of his.
    cache = cache_folder()
    if cache is None or not folder.is_relative_to(cache / "shards"):
        return None
    path = folder / ORIGIN
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _make_room(fetched: Path) -> None:
    """Remove the shards that were not read for longest, if all take more than they may."""
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
