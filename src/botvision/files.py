"""Writing files and folders so that a reader never sees half of one."""

import contextlib
import csv
import json
import os
import secrets
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from botvision.errors import BotvisionError


@contextlib.contextmanager
def replacing(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block succeeds.

    The new file is flushed to disk before the rename and the folder after it, so that a crash
    leaves either the old file or the new one. When the block fails, the old file stays.

    Args:
        path: Path of the file to write or replace.
        flushed: False for one of thousands of files that can be made again: after a power failure,
            though not after a crash of the program, it may be half there.

    Yields:
        The path to write to.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode
    try:
        yield temporary
        if flushed:
            _flush(temporary)
        temporary.chmod(mode)  # safetensors puts a private file of its own here
        temporary.replace(path)
        if flushed:
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """Return the temporary files of processes that were killed in ``replacing``."""
    return sorted(path.parent.glob(f".{path.name}.*{path.suffix}"))


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder`` that is renamed to it when the block succeeds.

    Args:
        folder: Folder to make; must not exist.

    Yields:
        The empty folder to write to.

    Raises:
        BotvisionError: If the folder exists.
    """
    if folder.exists() or folder.is_symlink():
        raise BotvisionError(f"{folder}: already exists; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}.", ignore_cleanup_errors=True
    ) as staging:
        # A folder in the temporary one, which is private whatever the umask.
        written = Path(staging, folder.name)
        written.mkdir()
        yield written
        written.rename(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that one process at a time has, on systems and file systems that have locks.

    Args:
        path: Path of the lock file; made if it is missing, and left there.
    """
    with path.open("ab") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


def cache_folder() -> Path | None:
    """Return ``$BOTVISION_CACHE``, else ``botvision`` in the user's cache folder.

    Returns:
        The folder, which may not exist; None without a home folder.
    """
    if given := os.environ.get("BOTVISION_CACHE"):
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "botvision"
    except RuntimeError:
        return None


def quoted(path: Path) -> str:
    """Return a path as a shell takes it, so that it can be pasted into a command."""
    return shlex.quote(str(path))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, all or nothing."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_json_lists(path: Path, content: dict[str, Any], lists: dict[str, Iterable[Any]]) -> None:
    """Write a JSON object whose lists are not held in memory, all or nothing.

    Args:
        path: File to write or replace.
        content: Keys that come first, and their values.
        lists: Keys of the lists, and their items; written one per line.
    """
    with replacing(path) as temporary, temporary.open("w") as file:
        separator = "{"
        for key, value in content.items():
            file.write(f"{separator}{json.dumps(key)}: {json.dumps(value)}")
            separator = ",\n"
        for key, items in lists.items():
            file.write(f"{separator}{json.dumps(key)}: [")
            separator, between = ",\n", "\n "
            for item in items:
                file.write(f"{between}{json.dumps(item)}")
                between = ",\n "
            file.write("]")
        file.write("\n}\n")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
