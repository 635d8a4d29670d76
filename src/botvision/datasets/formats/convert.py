"""Conversion of other formats to COCO folders.

The formats have own readers. Those of supervision turn polygons into masks of whole pixels, hold
the masks of all images in memory at once, and silently accept values out of range, surplus fields
and missing images; the tests compare boxes with theirs.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from botvision.datasets.coco.writing import CocoImage, write_coco
from botvision.datasets.formats import coco, labelme, voc, yolo
from botvision.datasets.formats.labeled_sets import LabeledSet
from botvision.datasets.layouts import Format, Layout, detect_layout
from botvision.errors import BotvisionError
from botvision.files import new_folder

_READERS: dict[Format, Callable[..., LabeledSet]] = {
    "coco": coco.read,
    "yolo": yolo.read,
    "voc": voc.read,
    "labelme": labelme.read,
}


@dataclass(frozen=True)
class ConversionReport:
    """Result of a conversion.

    Attributes:
        layout: Layout of the source folder.
        images: Number of images of each split.
        empty_images: Number of images without an instance, in all splits.
        instances: Number of instances of each split.
        per_class: Number of instances of each class, in all splits.
        skipped: Number of annotations left out, by reason.
        clipped: Number of boxes that reached out of their image and were clipped.
        images_left_out: Number of images left out with ``skip_bad``.
        faults: Why they are left out, one line per fault.
        notes: Lines that the user should read.
    """

    layout: Layout
    images: dict[str, int]
    empty_images: int
    instances: dict[str, int]
    per_class: dict[str, int]
    skipped: dict[str, int]
    clipped: int
    images_left_out: int
    faults: list[str]
    notes: list[str]

    @property
    def total(self) -> int:
        """Number of annotations in the source: instances and those left out."""
        return sum(self.instances.values()) + sum(self.skipped.values())


def convert(
    folder: str | Path,
    out: str | Path,
    *,
    format: Format | None = None,  # noqa: A002 - it is what people call it
    val_fraction: float = 0.2,
    seed: int = 0,
    link: bool = False,
    skip_bad: bool = False,
    voc_from: voc.Origin | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> ConversionReport:
    """Write a detection data set as a COCO folder, all of it or nothing.

    Args:
        folder: Source folder; nothing in it is changed.
        out: Folder to write; must not exist.
        format: Format of the source; None detects it.
        val_fraction: Fraction of the images that becomes "val" where "train" is the only split.
        seed: Random seed of their choice.
        link: Whether to make hard links instead of copies of the images.
        skip_bad: Whether to leave out images that are missing, cannot be read or have faulty
            labels, and to report them, instead of refusing the data set.
        voc_from: What the boxes of Pascal VOC files count from, 0 or 1; None to tell it by their
            values, see ``voc.read``.
        progress: Called with a title, the number of images done and the total.

    Raises:
        BotvisionError: If the layout is unknown, files are faulty or no instance is left; the
            message names the files and the parts of them, one fault a line.
    """
    folder, out = Path(folder), Path(out)
    if out.resolve().is_relative_to(folder.resolve()):
        raise BotvisionError(f"{out}: expected a folder outside {folder}, which is not changed")
    layout = detect_layout(folder, format)
    options: dict[str, Any] = {} if voc_from is None else {"voc_from": voc_from}
    if options and (layout.format != "voc" or voc_from not in (0, 1)):
        raise BotvisionError(
            f"voc_from: expected 0 or 1, for a Pascal VOC folder, got {voc_from} for a {layout}"
        )
    with new_folder(out) as written:
        read = _READERS[layout.format](
            folder, progress=partial(progress, "read images") if progress else None, **options
        )
        if not skip_bad:
            read.faults.raise_collected(str(folder))
        read.drop_repeated()
        _check_instances(read)
        _drop_empty_splits(read)
        _settle_splits(read, val_fraction, seed)
        _note_boxes(read)
        write_coco(
            written,
            read.splits,
            read.categories,
            link=link,
            progress=partial(progress, "write images") if progress else None,
        )
    return _report(layout, read)


def _check_instances(read: LabeledSet) -> None:
    """Check that there is something to learn; else say what became of the annotations."""
    images = [image for own in read.splits.values() for image in own]
    records = [each for image in images for each in image.annotations]
    if read.categories and not all(each.get("iscrowd") for each in records):
        return
    missing = "no instance" if read.categories else "no class and no instance"
    reasons = [f"{len(records):,} annotations are crowds (iscrowd: 1)"] if records else []
    reasons += [f"{count:,} annotations left out: {why}" for why, count in read.skipped.items()]
    if read.faulty_images:
        first = read.faults.messages[0]
        reasons.append(f"{read.faulty_images:,} images left out, the first for: {first}")
    if not reasons:
        reasons = ["there are no annotations", *read.notes]
    raise BotvisionError(
        f"{read.root}: {missing} is left in {len(images):,} images ({'; '.join(reasons)})"
    )


def _drop_empty_splits(read: LabeledSet) -> None:
    """Drop the splits whose images are all left out."""
    for split in [split for split, images in read.splits.items() if not images]:
        del read.splits[split]
        read.notes.append(f"{split}: no image is left, so that there is no such split")


def _note_boxes(read: LabeledSet) -> None:
    records = [each for own in read.splits.values() for image in own for each in image.annotations]
    records = [each for each in records if not each.get("iscrowd")]
    boxes = sum(not each.get("segmentation") for each in records)
    if boxes:
        read.notes.append(
            f"{boxes:,} of {len(records):,} instances have no outline: their boxes will be taken "
            "as masks by an instance segmenter"
        )


def _settle_splits(read: LabeledSet, fraction: float, seed: int) -> None:
    """Make a "val" split of "test" or of a part of "train", if there is none."""
    if "train" not in read.splits:
        read.notes.append("there is no train split: the result can be evaluated on, not trained on")
        return
    if "val" in read.splits:
        return
    if "test" in read.splits:
        read.splits["val"] = read.splits.pop("test")
        read.notes.append("there is no val split: test is taken as val")
        return
    images = read.splits["train"]
    count = max(1, round(fraction * len(images)))
    if count >= len(images):
        raise BotvisionError(
            f"{read.root}: expected images for train beside a fraction of {fraction} for val, got "
            f"{len(images)} in all"
        )
    chosen = set(np.random.default_rng(seed).permutation(len(images))[:count].tolist())
    parts: dict[str, list[CocoImage]] = {"train": [], "val": []}
    for number, image in enumerate(images):
        parts["val" if number in chosen else "train"].append(image)
    read.splits = parts
    read.notes.append(
        f"there is no val split: {count} of the {len(images)} images were chosen for it "
        f"(fraction {fraction}, seed {seed})"
    )


def _report(layout: Layout, read: LabeledSet) -> ConversionReport:
    images = [image for split in read.splits.values() for image in split]
    counts = Counter(each["category_id"] for image in images for each in image.annotations)
    return ConversionReport(
        layout=layout,
        images={split: len(own) for split, own in read.splits.items()},
        empty_images=sum(not image.annotations for image in images),
        instances={
            split: sum(len(image.annotations) for image in own)
            for split, own in read.splits.items()
        },
        per_class={category["name"]: counts[category["id"]] for category in read.categories},
        skipped=dict(read.skipped),
        clipped=read.clipped,
        images_left_out=read.faulty_images,
        faults=read.faults.messages,
        notes=read.notes,
    )
