"""Cache of annotation arrays: files in the user's cache folder that processes map into memory.

All processes of a machine that map a file share one copy of it. A cache file is in the format of
safetensors; nothing in it can be executed.
"""

import contextlib
import ctypes
import hashlib
import json
import uuid
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from botvision.datasets.coco.store import Array
from botvision.errors import BotvisionError
from botvision.files import cache_folder, locked

LARGE = 16 * 2**20
"""Bytes from which an annotation file's arrays are cached: reading less takes under a second."""

# To be raised with every change of the meaning of the arrays.
_FORMAT = "4"
# Errors of opening anything else than a cache file.
_NOT_A_CACHE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
_KINDS = {"BOOL": "?", "U8": "u1", "U32": "<u4", "I64": "<i8", "F64": "<f8"}

Arrays = Mapping[str, Array]


class MappedArrays(dict[str, Array]):
    """Arrays of a cache file by name, which other processes map by its path."""

    def __init__(self, arrays: Arrays, file: Path, metadata: dict[str, str]) -> None:
        super().__init__(arrays)
        self._source = file, metadata

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self._source


def cached(path: Path, read: Callable[[], Arrays]) -> Arrays:
    """Return the arrays of an annotation file, cached if the file is large.

    Where the cache folder cannot be written, the arrays stay in memory.

    Args:
        path: Annotation file.
        read: Function that reads it.

    Raises:
        BotvisionError: If ``read`` raises it.
    """
    key = _key(path)
    if key is None:
        return read()
    arrays = _mapped_or_read(path, key, read)
    _give_back_memory()
    return arrays


def _mapped_or_read(path: Path, key: str, read: Callable[[], Arrays]) -> Arrays:
    file = _cache_file(key)
    if file is None:
        return read()
    if found := _open(file, key):
        return found
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Ranks that start together wait for the first, rather than each reading the file.
            stack.enter_context(locked(file.with_suffix(".lock")))
        except OSError:
            return read()
        if found := _open(file, key):
            return found
        arrays = read()
        if _key(path) != key:  # written to meanwhile; nobody knows which state was read
            return arrays
        try:
            _save(arrays, file, key)
        except OSError:
            return arrays
    return _open(file, key) or arrays


def _key(path: Path) -> str | None:
    """Return a key that changes with the file; None for a small or missing file."""
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
    except (OSError, RuntimeError):
        return None
    if status.st_size < LARGE:
        return None
    return json.dumps([_FORMAT, str(resolved), status.st_size, status.st_mtime_ns])


def _cache_file(key: str) -> Path | None:
    folder = cache_folder()
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return folder and folder / "annotations" / f"{name}.safetensors"


def _save(arrays: Arrays, file: Path, key: str) -> None:
    # Not flushed to disk, which may take longer than reading: the checksum shows what a crash cut.
    temporary = file.with_suffix(f".{uuid.uuid4().hex}")
    try:
        save_file(dict(arrays), temporary, {"key": key, "checksum": _checksum(arrays)})
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _open(file: Path, key: str) -> MappedArrays | None:
    """Map a cache file; None if there is none, or it is not what it should be."""
    try:
        metadata, arrays = _map(file)
        if metadata.get("key") != key or metadata.get("checksum") != _checksum(arrays):
            return None
        return MappedArrays(arrays, file, metadata)
    except _NOT_A_CACHE:
        return None


def _reopen(file: Path, metadata: dict[str, str]) -> MappedArrays:
    """Map the cache file that another process has mapped."""
    try:
        found, arrays = _map(file)
        if found == metadata:
            return MappedArrays(arrays, file, metadata)
    except _NOT_A_CACHE:
        pass
    raise BotvisionError(f"{file}: cached annotations that are in use are gone; start again")


def _map(file: Path) -> tuple[dict[str, str], dict[str, Array]]:
    """Return metadata and read-only arrays of a safetensors file, or raise ``_NOT_A_CACHE``."""
    whole = np.asarray(np.memmap(file, mode="r"))
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    header: dict[str, Any] = json.loads(whole[8:start].tobytes())
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        content = whole[start + first : start + end]
        arrays[name] = content.view(_KINDS[entry["dtype"]]).reshape(entry["shape"])
    return metadata, arrays


def _checksum(arrays: Arrays) -> str:
    total = 0
    for name in sorted(arrays):
        content: Any = arrays[name].reshape(-1).view(np.uint8)
        total = zlib.crc32(content, total)
    return str(total)


def _give_back_memory() -> None:
    """Let glibc return what was freed while reading: 200 MiB after a file of COCO's size."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
