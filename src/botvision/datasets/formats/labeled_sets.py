"""What the readers of other formats make of a folder, and the checks that they share."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botvision.datasets.coco.writing import CocoImage
from botvision.datasets.layouts import SPLIT_WORDS
from botvision.errors import BotvisionError
from botvision.images.decode import upright_size

Progress = Callable[[int, int], None]
Box = tuple[float, float, float, float]

_ROUNDING = 0.1  # pixels that a box may reach out of the image without being called clipped


@dataclass
class LabeledSet:
    """A detection data set as it was read.

    Attributes:
        root: The user's folder; nothing outside it is read.
        categories: COCO records of the classes.
        splits: Images of each split.
        skipped: Number of annotations left out, by reason.
        clipped: Number of boxes that reached out of their image.
        notes: What the user should know, a line each.
    """

    root: Path
    categories: list[dict[str, Any]] = field(default_factory=list)
    splits: dict[str, list[CocoImage]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    clipped: int = 0
    notes: list[str] = field(default_factory=list)

    def inside(self, path: Path, where: str) -> Path:
        """The path itself, if it and what it links to are inside the folder.

        Raises:
            BotvisionError: If not; ``where`` says what names it.
        """
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise BotvisionError(f"{where}: expected a path inside {self.root}, got {path}")
        return path

    def size(self, path: Path, where: str) -> tuple[int, int]:
        """Width and height of an image inside the folder, upright.

        Raises:
            BotvisionError: If the image is missing, outside or no image that can be read.
        """
        self.inside(path, where)
        if not path.is_file():
            raise BotvisionError(f"{where}: expected the image {path}, got no such file")
        return upright_size(path)

    def box(self, corners: Box, size: tuple[int, int]) -> Box | None:
        """x, y, width, height of the part of a box x1, y1, x2, y2 that is in the image, counted.

        Returns:
            None if nothing of it is.
        """
        left, top, right, bottom = corners
        if right <= left or bottom <= top:
            self.skipped["box without area"] += 1
            return None
        x, y = max(left, 0.0), max(top, 0.0)
        width, height = min(right, size[0]) - x, min(bottom, size[1]) - y
        if width <= 0 or height <= 0:
            self.skipped["box outside the image"] += 1
            return None
        over = max(x - left, y - top, right - x - width, bottom - y - height)
        self.clipped += over > _ROUNDING
        return x, y, width, height


def polygon_corners(polygons: list[list[float]]) -> Box:
    """The box x1, y1, x2, y2 around polygons [x1, y1, x2, y2, ...]."""
    x = [value for polygon in polygons for value in polygon[::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    return min(x), min(y), max(x), max(y)


def split_of(word: str) -> str | None:
    """Our name of a split that others call by this word."""
    if word == "test":
        return "test"
    return next((split for split, words in SPLIT_WORDS.items() if word in words), None)


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        BotvisionError: If it cannot be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BotvisionError(f"{path}: cannot be read ({error})") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file's object.

    Raises:
        BotvisionError: If it cannot be read or is no JSON object.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BotvisionError(f"{path}: not JSON at offset {error.pos}: {error.msg}") from error
    except RecursionError as error:
        raise BotvisionError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise BotvisionError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
