"""Data sets of other formats, written as COCO folders.

The formats are read by readers of ours. Supervision's would turn polygons into masks of whole
pixels, hold the masks of all images in memory at once, and take values out of range, fields too
many and images that are missing without a word; the tests compare our boxes with its boxes.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from botvision.datasets.coco.writing import CocoImage, write_coco
from botvision.datasets.formats.coco import read_coco_folder
from botvision.datasets.formats.labeled_sets import LabeledSet
from botvision.datasets.formats.labelme import read_labelme
from botvision.datasets.formats.voc import read_voc
from botvision.datasets.formats.yolo import read_yolo
from botvision.datasets.layouts import Format, Layout, detect_layout
from botvision.errors import BotvisionError
from botvision.files import new_folder

_READERS: dict[Format, Callable[..., LabeledSet]] = {
    "coco": read_coco_folder,
    "yolo": read_yolo,
    "voc": read_voc,
    "labelme": read_labelme,
}


@dataclass(frozen=True)
class ConversionReport:
    """What was converted.

    Attributes:
        layout: What the folder was.
        images: Images of each split.
        empty_images: Of them, in all splits, those without an instance.
        instances: Instances of each split.
        per_class: Instances of each class, in all splits.
        skipped: Annotations left out, by reason; with the instances they are all that there were.
        clipped: Boxes that reached out of their image and were cut.
        notes: What the user should know, a line each.
    """

    layout: Layout
    images: dict[str, int]
    empty_images: int
    instances: dict[str, int]
    per_class: dict[str, int]
    skipped: dict[str, int]
    clipped: int
    notes: list[str]

    @property
    def total(self) -> int:
        """Annotations that there were."""
        return sum(self.instances.values()) + sum(self.skipped.values())


def convert(
    folder: Path,
    out: Path,
    *,
    format: Format | None = None,  # noqa: A002 - it is what people call it
    val_fraction: float = 0.2,
    seed: int = 0,
    link: bool = False,
    progress: Callable[[str, int, int], None],
) -> ConversionReport:
    """Write a detection data set as a COCO folder, all of it or nothing.

    Args:
        folder: The user's folder; nothing in it is changed.
        out: The folder to write; must not exist.
        format: Of the folder; None detects it.
        val_fraction: Share of the images that become "val" where there are none but "train".
        seed: Chooses them.
        link: Hard links instead of copies of the images.
        progress: Called with what is being done, how much of it is, and all of it.

    Raises:
        BotvisionError: If the layout is unknown or anything in it is not as it should be; naming
            the file and the place in it.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise BotvisionError(f"{out}: expected a folder outside {folder}, which is not changed")
    layout = detect_layout(folder, format)
    with new_folder(out) as written:
        read = _READERS[layout.format](
            folder, progress=lambda done, total: progress("read images", done, total)
        )
        _settle_splits(read, val_fraction, seed)
        write_coco(
            written,
            read.splits,
            read.categories,
            link=link,
            progress=lambda done, total: progress("write images", done, total),
        )
    return _report(layout, read)


def _settle_splits(read: LabeledSet, share: float, seed: int) -> None:
    """Give the set a "val", from "test" or from "train"."""
    if "val" in read.splits or "train" not in read.splits:
        return
    if "test" in read.splits:
        read.splits["val"] = read.splits.pop("test")
        read.notes.append("there is no val split: test is taken as val")
        return
    images = read.splits["train"]
    count = max(1, round(share * len(images)))
    if count >= len(images):
        raise BotvisionError(
            f"{read.root}: expected images for train beside a share of {share} for val, got "
            f"{len(images)} in all"
        )
    chosen = set(np.random.default_rng(seed).permutation(len(images))[:count].tolist())
    parts: dict[str, list[CocoImage]] = {"train": [], "val": []}
    for number, image in enumerate(images):
        parts["val" if number in chosen else "train"].append(image)
    read.splits = parts
    read.notes.append(
        f"there is no val split: {count} of the {len(images)} images were chosen for it "
        f"(share {share}, seed {seed})"
    )


def _report(layout: Layout, read: LabeledSet) -> ConversionReport:
    photos = [image for split in read.splits.values() for image in split]
    counts = Counter(each["category_id"] for image in photos for each in image.annotations)
    return ConversionReport(
        layout=layout,
        images={split: len(own) for split, own in read.splits.items()},
        empty_images=sum(not image.annotations for image in photos),
        instances={
            split: sum(len(image.annotations) for image in own)
            for split, own in read.splits.items()
        },
        per_class={category["name"]: counts[category["id"]] for category in read.categories},
        skipped=dict(read.skipped),
        clipped=read.clipped,
        notes=read.notes,
    )
