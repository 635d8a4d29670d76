"""Detection data sets as the readers of all formats return them, and rules that they share."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from botvision.datasets.coco.file import utf8_of
from botvision.datasets.coco.records import clip_box, is_finite
from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.formats.faults import Faults
from botvision.errors import BotvisionError
from botvision.images.decode import upright_size
from botvision.images.written_paths import find_written, similar_name

Progress = Callable[[int, int], None]
Box = tuple[float, float, float, float]

ROUNDING = 1e-5
"""Fraction of an image's side that writers of 6 decimals exceed the image by, at most."""


@dataclass
class LabeledSet:
    """Detection data set in memory.

    Attributes:
        root: Folder of the data set; nothing outside it is read.
        categories: COCO records of the classes.
        splits: Images of each split.
        skipped: Number of annotations left out, by reason.
        clipped: Number of boxes that reached out of their image.
        faults: Faults of images and their labels.
        faulty_images: Number of images that are left out for them.
        notes: Lines that the user should read.
    """

    root: Path
    categories: list[dict[str, Any]] = field(default_factory=list)
    splits: dict[str, list[CocoImage]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    clipped: int = 0
    faults: Faults = field(default_factory=Faults)
    faulty_images: int = 0
    notes: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep the faults of one image and its labels, and go on after the block.

        The block must add the image to a split at its end: an image with a fault is left out.
        Within it, ``Faults`` collects the faults of single lines or objects.
        """
        skipped, clipped, known = self.skipped.copy(), self.clipped, len(self.faults.messages)
        with self.faults.collecting():
            yield
        if len(self.faults.messages) > known:
            # Of an image that is left out, no annotation is counted either.
            self.skipped, self.clipped = skipped, clipped
            self.faulty_images += 1

    def inside(self, path: Path, where: str) -> Path:
        """Return the path itself, if it and its link target are inside the folder.

        Args:
            path: Path to check.
            where: Part of the data set that names it, for the message.

        Raises:
            BotvisionError: If the path leads out of the folder.
        """
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise BotvisionError(f"{where}: expected a path inside {self.root}, got {path}")
        return path

    def find(self, written: str, folder: Path, where: str, what: str = "the image") -> Path:
        """Return the file or folder that a path in a label file means, see ``find_written``.

        Args:
            written: Path as the label file has it.
            folder: Folder that relative paths start from.
            where: Part of the data set that names it, for the message.
            what: What is expected there, for the message.

        Raises:
            BotvisionError: If nothing is there, or it is outside the folder.
        """
        found = find_written(written, folder, self.root)
        if found is not None:
            return found
        path = folder / PureWindowsPath(written).as_posix()
        if not is_absolute(written) or exists(path):
            self.inside(path, where)
        similar = similar_name(path)
        hint = f"; there is {similar}" if similar else ""
        raise BotvisionError(f"{where}: expected {what} {written}, got no such file{hint}")

    def size(self, path: Path, where: str) -> tuple[int, int]:
        """Return width and height of an upright image inside the folder.

        Raises:
            BotvisionError: If the image is missing, outside the folder or cannot be read.
        """
        self.inside(path, where)
        if not path.is_file():
            similar = similar_name(path)
            hint = f"; there is {similar}" if similar else ""
            raise BotvisionError(f"{where}: expected the image {path}, got no such file{hint}")
        return upright_size(path)

    def box(self, corners: Box, size: tuple[int, int]) -> Box | None:
        """Return x, y, width, height of the part of a box x1, y1, x2, y2 inside the image.

        Boxes that are clipped or left out are counted.

        Returns:
            None if no part of the box is inside.
        """
        left, top, right, bottom = corners
        (x, y, width, height), has_area, _ = clip_box(corners, size)
        if not has_area:
            empty = right <= left or bottom <= top
            self.skipped["box without area" if empty else "box outside the image"] += 1
            return None
        over_x = max(-left, right - size[0]) / size[0]
        over_y = max(-top, bottom - size[1]) / size[1]
        self.clipped += int(max(over_x, over_y) > ROUNDING)
        return float(x), float(y), float(width), float(height)

    def note_files(self, what: str, paths: Collection[Path]) -> None:
        """Note files that are not read, if there are any.

        Args:
            what: What they are and why they are not read, such as "label files without an image".
            paths: The files.
        """
        if paths:
            names = sorted(path.relative_to(self.root).as_posix() for path in paths)
            more = ", ..." if len(names) > 3 else ""
            self.notes.append(f"left out: {len(names):,} {what}: {', '.join(names[:3])}{more}")

    def drop_repeated(self) -> None:
        """Leave out and count annotations that repeat another one of their image.

        A detection matches one of two equal instances, and misses the other.
        """
        for images in self.splits.values():
            for image in images:
                kept: dict[str, list[Any]] = {}
                unique = []
                for record in image.annotations:
                    outlines = kept.setdefault(_class_and_box(record), [])
                    outline = _rounded(record.get("segmentation") or None)
                    if outline in outlines:
                        self.skipped["the same as another of its image"] += 1
                        continue
                    outlines.append(outline)
                    unique.append(record)
                image.annotations[:] = unique


def _class_and_box(record: dict[str, Any]) -> str:
    box, crowd = _rounded(record.get("bbox")), bool(record.get("iscrowd"))
    return f"{record.get('category_id')} {box} {crowd}"


def _rounded(value: Any) -> Any:
    """Return pixels of boxes and outlines as far as the writers of 6 decimals agree on them."""
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(float(value), 1) if isinstance(value, int | float) and is_finite(value) else value


def polygon_corners(polygons: list[list[float]]) -> Box:
    """Return the box x1, y1, x2, y2 around polygons [x1, y1, x2, y2, ...]."""
    x = [value for polygon in polygons for value in polygon[::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    return min(x), min(y), max(x), max(y)


def is_absolute(written: str) -> bool:
    """Return whether a path is absolute on any system."""
    return PurePosixPath(written).is_absolute() or bool(PureWindowsPath(written).anchor)


def exists(path: Path) -> bool:
    """Return whether there is a file or folder; a path that no system can hold is not there."""
    with contextlib.suppress(OSError, ValueError):
        return path.exists()
    return False


def read_text(path: Path) -> str:
    """Return the content of a text file of UTF-8, or of UTF-16 with a byte order mark.

    Raises:
        BotvisionError: If it cannot be read or is of another encoding.
    """
    try:
        text = utf8_of(path.read_bytes()).decode()  # PowerShell's ">" writes UTF-16
    except UnicodeDecodeError as error:
        raise BotvisionError(
            f"{path}: expected UTF-8 text, got another encoding ({error.reason} at byte "
            f"{error.start}); convert it, for example with: iconv -f gb18030 -t utf-8"
        ) from error
    except OSError as error:
        raise BotvisionError(f"{path}: cannot be read ({error.strerror})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
