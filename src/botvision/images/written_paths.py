"""Paths as annotation files write them: those of Windows, Macs and other computers."""

import functools
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath


def find_written(written: str, folder: Path, root: Path) -> Path | None:
    """Return the file or folder that a path in an annotation file means.

    The path is tried as it is written, below ``folder``; then with Windows' backslashes as slashes;
    with its letters composed as the file system's are (a Mac writes "ü" as two characters); and, if
    it is the absolute path of another computer, by the longest end of it that exists below
    ``folder`` or ``root``.

    Args:
        written: The path in the annotation file.
        folder: Folder that relative paths start from.
        root: Folder of the data set.

    Returns:
        A path that exists, inside ``root`` with its links followed; None if there is none.
    """
    inside = root.resolve()
    for candidate in _candidates(written, folder, root):
        try:
            found = candidate if candidate.exists() else _composed(candidate)
            if found is not None and found.resolve().is_relative_to(inside):
                return found
            if found is not None and found == Path(written):
                return None  # a file of this computer, elsewhere: no other is meant
        except (OSError, ValueError):  # a name too long for the file system, or with a zero in it
            continue
    return None


def similar_name(path: Path) -> str | None:
    """Return the name of a file that differs from a missing one in case or suffix alone.

    Args:
        path: Path of the missing file.
    """
    names = _names(path.parent).values()
    for same in (str.lower, _lower_stem):
        found = [name for name in names if same(name) == same(path.name)]
        if found:
            return min(found)
    return None


def _candidates(written: str, folder: Path, root: Path) -> Iterator[Path]:
    yield folder / written
    slashed = PureWindowsPath(written).as_posix() if "\\" in written else written
    if slashed != written:
        yield folder / slashed
    windows = PureWindowsPath(slashed)
    path: PurePath = PurePosixPath(slashed)
    if not (windows.drive or path.is_absolute()):
        return
    parts = path.parts[1:]
    for start in range(len(parts)):
        end = parts[start:]
        if ".." not in end:
            # A bare name is looked for where names are, not in the whole data set.
            yield from (base.joinpath(*end) for base in ((folder, root) if end[1:] else (folder,)))


def _composed(path: Path) -> Path | None:
    """Return the path whose last name is the same text in other Unicode characters."""
    if path.name.isascii():
        return None
    name = _names(path.parent).get(unicodedata.normalize("NFC", path.name))
    return path.with_name(name) if name else None


def _names(folder: Path) -> dict[str, str]:
    """Return the names in a folder by their composed form; none if there is no such folder."""
    try:
        return _listing(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(maxsize=8)
def _listing(folder: Path, _: int) -> dict[str, str]:
    return {unicodedata.normalize("NFC", path.name): path.name for path in folder.iterdir()}


def _lower_stem(name: str) -> str:
    return PurePath(name).stem.lower()
