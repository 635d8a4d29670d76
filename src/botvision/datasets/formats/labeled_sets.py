"""Detection data sets as the readers of all formats return them, and rules that they share."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botvision.datasets.coco.records import clip_box
from botvision.datasets.coco.writing import CocoImage
from botvision.errors import BotvisionError
from botvision.images.decode import upright_size

Progress = Callable[[int, int], None]
Box = tuple[float, float, float, float]


@dataclass
class LabeledSet:
    """Detection data set in memory.

    Attributes:
        root: Folder of the data set; nothing outside it is read.
        categories: COCO records of the classes.
        splits: Images of each split.
        skipped: Number of annotations left out, by reason.
        clipped: Number of boxes that reached out of their image.
        notes: Lines that the user should read.
    """

    root: Path
    categories: list[dict[str, Any]] = field(default_factory=list)
    splits: dict[str, list[CocoImage]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    clipped: int = 0
    notes: list[str] = field(default_factory=list)

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

    def size(self, path: Path, where: str) -> tuple[int, int]:
        """Return width and height of an upright image inside the folder.

        Raises:
            BotvisionError: If the image is missing, outside the folder or cannot be read.
        """
        self.inside(path, where)
        if not path.is_file():
            raise BotvisionError(f"{where}: expected the image {path}, got no such file")
        return upright_size(path)

    def box(self, corners: Box, size: tuple[int, int]) -> Box | None:
        """Return x, y, width, height of the part of a box x1, y1, x2, y2 inside the image.

        Boxes that are clipped or left out are counted.

        Returns:
            None if no part of the box is inside.
        """
        left, top, right, bottom = corners
        (x, y, width, height), has_area, over = clip_box(corners, size)
        if not has_area:
            empty = right <= left or bottom <= top
            self.skipped["box without area" if empty else "box outside the image"] += 1
            return None
        self.clipped += int(over)
        return float(x), float(y), float(width), float(height)


def polygon_corners(polygons: list[list[float]]) -> Box:
    """Return the box x1, y1, x2, y2 around polygons [x1, y1, x2, y2, ...]."""
    x = [value for polygon in polygons for value in polygon[::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    return min(x), min(y), max(x), max(y)


def read_text(path: Path) -> str:
    """Return the content of a text file.

    Raises:
        BotvisionError: If it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BotvisionError(f"{path}: cannot be read ({error})") from error
