"""Annotation arrays in the user's cache folder, mapped into the memory of whoever needs them.

All processes of a machine that map a file share one copy of it, and later openings read nothing but
what is used. A cache file is in the format of safetensors; nothing in it can be executed.
"""

import contextlib
import ctypes
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from botvision.datasets.coco.store import AnnotationArrays, Array
from botvision.errors import BotvisionError
from botvision.files import cache_folder, locked, replacing

LARGE = 16 * 2**20
"""Bytes from which an annotation file's arrays are cached: reading less takes under a second."""

# To be raised with every change of what the arrays mean.
_FORMAT = "2"
# What opening anything else than a cache file may raise.
_NOT_A_CACHE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
_KINDS = {"U8": "u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "I64": "<i8", "F64": "<f8"}


def cached(path: Path, read: Callable[[], AnnotationArrays]) -> AnnotationArrays:
    """The arrays of an annotation file: from the cache, or read and put there if it is large.

    Where the cache folder cannot be written, the arrays stay in memory.

    Args:
        path: The annotation file.
        read: Reads it.

    Raises:
        BotvisionError: What ``read`` raises.
    """
    key = _key(path)
    if key is None:
        return read()
    arrays = _mapped_or_read(path, key, read)
    _give_back_memory()
    return arrays


def _mapped_or_read(path: Path, key: str, read: Callable[[], AnnotationArrays]) -> AnnotationArrays:
    file = _cache_file(key)
    if file is None:
        return read()
    if arrays := _open(file, key):
        return arrays
    with contextlib.ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Ranks that start together wait for the first, rather than each reading the file.
            stack.enter_context(locked(file.with_suffix(".lock")))
        except OSError:
            return read()
        if arrays := _open(file, key):
            return arrays
        arrays = read()
        if _key(path) != key:  # written to meanwhile; nobody knows which state was read
            return arrays
        try:
            _save(arrays, file, key)
        except OSError:
            return arrays
    return _open(file, key) or arrays


def _key(path: Path) -> str | None:
    """What the arrays of a large file depend on; None for a small or missing one."""
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


def _save(arrays: AnnotationArrays, file: Path, key: str) -> None:
    metadata = {"key": key, "checksum": _checksum(arrays.arrays)}
    with replacing(file) as temporary:
        save_file(arrays.arrays, temporary, metadata)


def _open(file: Path, key: str) -> AnnotationArrays | None:
    """Map a cache file; None if there is none, or it is not what it should be."""
    try:
        metadata, arrays = _map(file)
        if metadata.get("key") != key or metadata.get("checksum") != _checksum(arrays):
            return None
        return AnnotationArrays(arrays, (_reopen, (file, metadata)))
    except _NOT_A_CACHE:
        return None


def _reopen(file: Path, metadata: dict[str, str]) -> AnnotationArrays:
    """Map the cache file that another process has mapped."""
    try:
        found, arrays = _map(file)
        if found == metadata:
            return AnnotationArrays(arrays, (_reopen, (file, metadata)))
    except _NOT_A_CACHE:
        pass
    raise BotvisionError(f"{file}: cached annotations that are in use are gone; start again")


def _map(file: Path) -> tuple[dict[str, str], dict[str, Array]]:
    """Metadata and read-only arrays of a safetensors file; raises some of ``_NOT_A_CACHE``."""
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


def _checksum(arrays: Mapping[str, Array]) -> str:
    total = 0
    for name in sorted(arrays):
        content: Any = arrays[name].reshape(-1).view(np.uint8)
        total = zlib.crc32(content, total)
    return str(total)


def _give_back_memory() -> None:
    """Let glibc return what was freed while reading: 200 MiB after a file of COCO's size."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
