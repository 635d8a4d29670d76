"""Writing files so that a reader never sees half of one."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    The new file is flushed to disk before the rename and the folder after it, so that a crash
    leaves either the old file or the new one. When the block fails, the old file stays.

    Args:
        path: File to write or replace.

    Yields:
        The path to write to.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """What processes that were killed in ``replacing`` left beside a file."""
    return sorted(path.parent.glob(f".{path.name}.*{path.suffix}"))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that one process at a time has, on systems and file systems that have locks.

    Args:
        path: A file for the lock alone; made, and left there.
    """
    with path.open("ab") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
