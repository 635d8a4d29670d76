"""Image files in folders: which files are images, and which are leftovers of systems and tools."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from botvision.errors import BotvisionError
from botvision.images.own_files import is_own_file

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".webp", ".tif", ".tiff"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif"),
    }
)
"""Suffixes, in lower case, of the formats that ``read_image`` reads."""

# Images of formats that are not read.
_OTHER_IMAGES = frozenset(
    {
        *(".heic", ".heif", ".hif", ".jxl", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf"),
        *(".rw2", ".raf", ".tga", ".ico", ".svg", ".psd", ".eps", ".exr", ".hdr", ".dcm", ".jxr"),
    }
)
# __MACOSX: a Mac's zip files; @eaDir, #recycle: a Synology; the others: Windows and ext4.
_LEFTOVER_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
)
_NO_FORMAT = " (no image format)"
_LEFTOVER_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


@dataclass
class FoundImages:
    """Images found in files and folders, and what was left out.

    Attributes:
        paths: Image files, sorted within each folder given.
        left_out: Number of files left out, by reason.
    """

    paths: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def note(self) -> str:
        """Return a line on the files left out; empty if there are none."""
        return left_out_note(self.left_out)


def left_out_reason(name: str | PurePath) -> str:
    """Return why a file is no image by its suffix, as a key of ``FoundImages.left_out``."""
    return f"{PurePath(name).suffix.lower() or 'without a suffix'}{_NO_FORMAT}"


def left_out_note(left_out: Counter[str]) -> str:
    """Return a line on files left out, see ``FoundImages.left_out``; empty if there are none."""
    if not left_out:
        return ""
    parts = (f"{count:,} {reason}" for reason, count in left_out.most_common())
    others = sorted(_OTHER_IMAGES & {reason.removesuffix(_NO_FORMAT) for reason in left_out})
    remedy = f"; convert {', '.join(others)} to JPEG or PNG to use them" if others else ""
    return f"left out: {', '.join(parts)}{remedy}"


def is_image_name(name: str | PurePath) -> bool:
    """Return whether a file of this name is an image by its suffix."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def is_leftover(relative: str | PurePath) -> bool:
    """Return whether a path is hidden or a leftover of an operating system or tool.

    Such are names that begin with a dot ("._a.png", ".ipynb_checkpoints/a.png"), ``__MACOSX``,
    ``@eaDir``, ``Thumbs.db`` and the like.

    Args:
        relative: Path below the folder that the user named, so that a hidden folder above it does
            not hide all it holds.
    """
    parts = PurePath(relative).parts
    return any(part.startswith(".") or part.lower() in _LEFTOVER_FOLDERS for part in parts) or bool(
        parts and parts[-1].lower() in _LEFTOVER_FILES
    )


def walk_files(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield the files of a suffix, in any case, that are no leftovers, sorted within each folder.

    By names alone, since there may be a million images beside them.
    """
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_leftover(name))
        for name in sorted(names):
            if name.lower().endswith(suffix) and not is_leftover(name):
                path = Path(parent, name)
                if path.is_file():
                    yield path


def files_below(folder: Path, pattern: str | None = None) -> Iterator[Path]:
    """Yield the files of a folder that are no leftovers, sorted by path.

    Args:
        folder: Folder to look into.
        pattern: Glob pattern below the folder; None: all files, of subfolders too.
    """
    if pattern is None:
        yield from sorted(walk_files(folder))
        return
    for path in sorted(folder.glob(pattern)):
        if not is_leftover(path.relative_to(folder)) and path.is_file():
            yield path


def image_files(folder: Path, pattern: str | None = None) -> Iterator[Path]:
    """Yield the image files of a folder that are no leftovers, sorted; see ``files_below``."""
    return (path for path in files_below(folder, pattern) if is_image_name(path))


def matching_paths(source: str) -> list[Path]:
    """Return the paths that a glob pattern matches, sorted; a path that is there means itself.

    Raises:
        BotvisionError: If a pattern matches nothing.
    """
    path = Path(source)
    if path.exists() or not glob.has_magic(source):
        return [path]
    found = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - absolute too
    if not found:
        raise BotvisionError(f"{source}: no file matches")
    return [Path(each) for each in found]


def find_images(paths: Path | Iterable[Path]) -> FoundImages:
    """Find image files: those given, and those in the folders given and their subfolders.

    A file that is given by itself is taken whatever its name; its content tells the format. What
    botvision drew, such as the overlays of an earlier prediction, is left out of folders.

    Args:
        paths: Files and folders.

    Raises:
        BotvisionError: If a path is missing, or a folder holds no images.
    """
    found = FoundImages()
    for path in [paths] if isinstance(paths, Path) else paths:
        if path.is_file():
            found.paths.append(path)
            continue
        if not path.is_dir():
            raise BotvisionError(f"{path}: no such file or folder")
        own = FoundImages()
        for file in sorted(path.rglob("*")):
            if not file.is_file():
                continue
            if is_leftover(file.relative_to(path)):
                own.left_out["hidden or system files"] += 1
            elif is_own_file(file, path):
                own.left_out["files of earlier predictions"] += 1
            elif is_image_name(file):
                own.paths.append(file)
            else:
                own.left_out[left_out_reason(file)] += 1
        if not own.paths:
            raise BotvisionError(
                f"{path}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
                + (f"; {own.note()}" if own.left_out else "")
            )
        found.paths += own.paths
        found.left_out += own.left_out
    return found
