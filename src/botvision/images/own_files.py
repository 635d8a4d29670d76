"""Files that botvision draws: marked, so that they are never taken for photographs or replaced.

An earlier version's files bear no mark; they are those that its ``predictions.json`` implies.
"""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

OUTPUT_NAME = "predictions.json"
"""Name of the file that a prediction writes beside its images."""

SHEET_NAME = "predictions.jpg"
"""Name of the sheet that the prediction of a classifier writes."""

TABLE_NAME = "predictions.csv"
"""Name of a table of results."""

MADE_BY = "botvision"
"""Mark of a file; ``predictions.json`` has it under the key "made_by"."""

_FORMATS = {".png": "PNG", ".jpg": "JPEG"}


class _NamedImage(msgspec.Struct):
    file_name: str


class _Output(msgspec.Struct):
    images: list[_NamedImage]
    skipped: msgspec.Raw
    made_by: str = ""
    annotations: msgspec.Raw = msgspec.Raw(b"")  # of detectors alone


def save_drawn(image: Image.Image, path: Path, *, quality: int = 75) -> None:
    """Save an image that botvision drew as PNG or JPEG, with its mark.

    Args:
        image: What was drawn.
        path: File to write.
        quality: Quality of a JPEG.
    """
    options: dict[str, Any] = {}
    if path.suffix == ".png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Software", MADE_BY)
    else:
        options["quality"] = quality
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Software] = MADE_BY
    image.save(path, **options)


def is_own_file(path: Path, folder: Path) -> bool:
    """Return whether an earlier prediction or training wrote a file.

    Args:
        path: A file.
        folder: Folder above it that predictions may have been written to, or to one between.
    """
    if path.is_symlink() and not path.is_file():
        return False
    if path.name == OUTPUT_NAME:
        return _output(path.parent) is not None
    if path.suffix in (".json", ".jsonl"):
        return _is_own_text(path)
    if path.suffix == ".csv":  # which has no place for a mark
        return any(map(_is_own_text, path.parent.glob("predictions*.jsonl")))
    if path.suffix not in _FORMATS:
        return False
    if _is_marked(path):
        return True
    above = [path.parent, *path.parent.parents]
    if folder in above:
        above = above[: above.index(folder) + 1]
    return any(path in _implied_files(each) for each in above)


def overlay_names(names: Sequence[Path], suffix: str) -> list[Path]:
    """Return the paths of overlays of images; names that differ in case alone get a number.

    Args:
        names: Paths of the images below the folder that they have in common.
        suffix: Suffix of the overlays, such as ".jpg".
    """
    taken: set[str] = set()
    overlays = []
    for name in names:
        stem = f"{name.stem}_{name.suffix[1:].lower()}"
        overlay, number = name.with_name(f"{stem}{suffix}"), 2
        while str(overlay) in taken:
            overlay, number = name.with_name(f"{stem}_{number}{suffix}"), number + 1
        taken.add(str(overlay))
        overlays.append(overlay)
    return overlays


def _is_own_text(path: Path) -> bool:
    """Return whether the first line of a file says that botvision made it."""
    try:
        with path.open(encoding="utf-8") as file:
            return f'"made_by": "{MADE_BY}"' in file.readline(2**20)
    except (OSError, UnicodeDecodeError):
        return False


def _is_marked(path: Path) -> bool:
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(path, formats=[_FORMATS[path.suffix]]) as image,
        ):
            marks = (image.info.get("Software"), image.getexif().get(ExifTags.Base.Software))
            return MADE_BY in marks
    except Exception:  # decoders of damaged files raise anything; such a file is the user's
        return False


def _implied_files(folder: Path) -> frozenset[Path]:
    """Return the images that an earlier version wrote with a folder's ``predictions.json``."""
    try:
        modified = (folder / OUTPUT_NAME).stat().st_mtime_ns
    except OSError:
        return frozenset()
    return _unmarked(folder, modified)


@functools.lru_cache(maxsize=256)
def _unmarked(folder: Path, _: int) -> frozenset[Path]:
    output = _output(folder)
    if output is None or output.made_by:  # this version marks what it draws
        return frozenset()
    if not bytes(output.annotations):
        return frozenset({folder / SHEET_NAME})
    names = [Path(each.file_name) for each in output.images]
    return frozenset(folder / name for name in overlay_names(names, ".png"))


def _output(folder: Path) -> _Output | None:
    """Return a folder's ``predictions.json``; None if there is none that a prediction wrote."""
    try:
        return msgspec.json.decode((folder / OUTPUT_NAME).read_bytes(), type=_Output)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
