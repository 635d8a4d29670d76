"""ImageNet (ILSVRC 2012), which may only be got by hand: what to put where, and whether it is."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from botvision.errors import BotvisionError
from botvision.images.decode import IMAGE_SUFFIXES

CLASSES = 1000
IMAGES = {"train": 1_281_167, "val": 50_000}

INSTRUCTIONS = """\
ImageNet must be got by hand, after an agreement to its terms, at https://image-net.org
(ILSVRC 2012, task 1 and 2: ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar). Unpack into
  {folder}/train/n01440764/*.JPEG ... {folder}/train/n15075141/*.JPEG
  {folder}/val/n01440764/*.JPEG ... {folder}/val/n15075141/*.JPEG
The training archive holds an archive a class; the validation images lie in one folder and must
be sorted into their classes' folders. Then run the command again: it counts them."""


def check_imagenet(folder: Path, *, progress: Callable[[int, int], None]) -> dict[str, int]:
    """Count the images of an ImageNet folder.

    Args:
        folder: Holds ``train/<class>/*.JPEG`` and ``val/<class>/*.JPEG``.
        progress: Called with the class folders done and their number.

    Returns:
        The images of each split.

    Raises:
        BotvisionError: Naming the split and what it lacks.
    """
    counts = {}
    for before, (split, expected) in enumerate(IMAGES.items()):
        classes = _class_folders(folder / split)
        images = 0
        for number, path in enumerate(classes, start=1):
            found = _images(path)
            if not found:
                raise BotvisionError(f"{path}: expected images, got none")
            if split == "val" and found != expected // CLASSES:
                raise BotvisionError(f"{path}: expected {expected // CLASSES} images, got {found}")
            images += found
            progress(before * CLASSES + number, len(IMAGES) * CLASSES)
        if images != expected:
            raise BotvisionError(
                f"{folder / split}: expected {expected:,} images, got {images:,}; unpack the "
                "archives again"
            )
        counts[split] = images
    return counts


def _class_folders(split: Path) -> list[Path]:
    if not split.is_dir():
        raise BotvisionError(f"{split}: expected {CLASSES} class folders, got no such folder")
    classes = sorted(p for p in split.iterdir() if p.is_dir() and re.fullmatch(r"n\d{8}", p.name))
    if len(classes) != CLASSES:
        loose = _images(split)
        hint = f" and {loose:,} images beside them" if loose else ""
        raise BotvisionError(
            f"{split}: expected {CLASSES} class folders n01440764 to n15075141, got "
            f"{len(classes)}{hint}"
        )
    return classes


def _images(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in entries)
