"""Checking a COCO folder: all that is wrong with it, what it holds, and images of both."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from botvision.datasets.check.findings import Finding
from botvision.datasets.check.image_checks import find_images, read_images
from botvision.datasets.check.statistics import count_statistics
from botvision.datasets.coco.annotations import CocoAnnotations, annotations_of
from botvision.datasets.coco.checks import check_annotations
from botvision.datasets.coco.reading import read_sound
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split
from botvision.errors import BotvisionError
from botvision.images.sources import ImageSource
from botvision.shards.read import open_images

Progress = Callable[[str, int, int], None]

_SHORTEST_SIDE = 32  # pixels: one place of the network's last map
_TRAINED_ON = ("train", "val")


@dataclass
class SplitReport:
    """What the check found in one split.

    Attributes:
        where: The annotation file and the image folder.
        images: Those of the folder.
        annotations: What is sound in the file.
        findings: All of them.
        unusable: Places of the images whose images cannot be used.
        contents: Whether the images were read whole.
    """

    where: CocoSplit
    images: ImageSource
    annotations: CocoAnnotations
    findings: list[Finding]
    unusable: set[int] = field(default_factory=set)
    contents: bool = False

    def summary(self) -> dict[str, Any]:
        """Counts, ready for JSON; what is accepted, skipped and refused adds up to the total."""
        tally, accepted = (
            self.annotations.arrays.description,
            len(self.annotations.arrays.instance_ids),
        )
        skipped_images = sum(f.severity == "skipped" and not f.where for f in self.findings)
        return {
            "file": str(self.where.annotations),
            "images_read": self.contents,
            "annotations": {
                "total": tally["records"],
                "accepted": accepted,
                "skipped": sum(tally["skipped"].values()),
                "refused": tally["refused"],
            },
            "image_files": {
                "total": len(self.annotations.images),
                "accepted": len(self.annotations.images) - len(self.unusable),
                "skipped": skipped_images,
                "refused": len(self.unusable) - skipped_images,
            },
            **count_statistics(self.annotations),
        }


@dataclass
class DataReport:
    """What the check found in a folder.

    Attributes:
        folder: The folder.
        splits: What was found in each.
        findings: About the folder as a whole.
    """

    folder: Path
    splits: dict[str, SplitReport] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def all_findings(self) -> list[Finding]:
        """Those of the folder and of all splits."""
        return [*self.findings, *(f for each in self.splits.values() for f in each.findings)]

    @property
    def trainable(self) -> bool:
        """Whether training would take the data."""
        return all(finding.severity != "error" for finding in self.all_findings())

    def as_json(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "folder": str(self.folder),
            "trainable": self.trainable,
            "splits": {name: each.summary() for name, each in self.splits.items()},
            "counts": dict(Counter(finding.severity for finding in self.all_findings())),
            "findings": [
                {**vars(finding), "message": finding.message} for finding in self.all_findings()
            ],
        }


def check_folder(
    folder: Path,
    splits: Sequence[str] = (),
    *,
    contents: bool = True,
    skip_bad: bool = False,
    image_size: int,
    num_workers: int,
    progress: Progress,
) -> DataReport:
    """Check a COCO folder and list all that is wrong with it.

    Args:
        folder: See ``layouts.find_coco_split``.
        splits: Those to check; all that there are if none is named.
        contents: Whether to read the images, and not only to look whether they are there.
        skip_bad: Whether training is to leave out images that cannot be read.
        image_size: Of training: what it makes too small is counted.
        num_workers: Processes that read images.
        progress: Called with what is being done, how much of it is done, and the total.

    Raises:
        BotvisionError: If the folder is none, or has no such split.
    """
    report = DataReport(folder)
    if splits:
        found = {split: find_coco_split(folder, split) for split in splits}
    else:
        found = coco_splits(folder) or {"train": find_coco_split(folder, "train")}
        report.findings = _missing_splits(folder)
    digests: dict[bytes, str] = {}
    for name, where in found.items():
        each = _check_split(where, skip_bad=skip_bad, image_size=image_size)
        report.splits[name] = each
        if contents:
            _read_split(name, each, digests, skip_bad, num_workers, progress)
        if each.unusable and len(each.unusable) == len(each.annotations.images):
            file, said = str(where.annotations), "no image can be read"
            each.findings.append(Finding("error", file, field="images", said=said))
    if "train" in report.splits:
        for name, each in report.splits.items():
            each.findings += _other_categories(report.splits["train"], name, each)
    return report


def _missing_splits(folder: Path) -> list[Finding]:
    """Errors about the splits that training wants by default."""
    findings = []
    for split in _TRAINED_ON:
        try:
            find_coco_split(folder, split)
        except BotvisionError as error:
            said = str(error).removeprefix(f"{folder}: ")
            findings.append(
                Finding("error", str(folder), field="split", value="", expected=split, said=said)
            )
    return findings


def _check_split(where: CocoSplit, *, skip_bad: bool, image_size: int) -> SplitReport:
    """All but the contents of the images."""
    findings: list[Finding] = []
    arrays = read_sound(where.annotations, findings)
    if arrays is None:
        findings.clear()
        arrays = check_annotations(where.annotations, findings.append)
    annotations, images = annotations_of(where.annotations, arrays), open_images(where.images)
    report = SplitReport(where, images, annotations, findings)
    refused = any(finding.severity == "error" for finding in findings)
    if not len(report.annotations.images) and not refused:
        findings.append(
            Finding("error", str(where.annotations), "", None, "images", "none", "at least one")
        )
    for place, fault in find_images(annotations, images, skip_bad=skip_bad):
        if fault is not None:
            report.unusable.add(place)
            findings.append(fault)
    findings += _counted(report, image_size)
    return report


def _counted(report: SplitReport, image_size: int) -> Iterable[Finding]:
    """What training takes, but people may not know of."""
    annotations = report.annotations
    file = str(annotations.path)
    table = annotations.arrays.instance_table()
    counts = np.bincount(table.image_places[~table.crowds], minlength=len(annotations.images))
    if empty := int((counts == 0).sum()):
        said = f"{empty:,} images without an instance: they are trained on as negatives"
        yield Finding("counted", file, "images", value=str(empty), said=said)
    sizes = annotations.arrays.arrays["image_sizes"]
    scales = image_size / sizes.max(axis=1, initial=1.0)
    sides = table.boxes[:, 2:].min(axis=1, initial=np.inf) * scales[table.image_places]
    if lost := int((sides[~table.crowds] < 1).sum()):
        said = f"{lost:,} instances below a pixel at image size {image_size}: training drops them"
        yield Finding("counted", file, "annotations", field="bbox", value=str(lost), said=said)
    narrow = (sizes.min(axis=1, initial=np.inf) * np.minimum(scales, 1)) < _SHORTEST_SIDE
    for place in np.flatnonzero(narrow).tolist():
        record = annotations.images[place]
        yield Finding(
            "counted",
            file,
            f"image {record['id']}",
            id=record["id"],
            field="width x height",
            value=f"{record['width']} x {record['height']}",
            expected=f"sides of at least {_SHORTEST_SIDE} pixels at image size {image_size}",
        )


def _read_split(
    name: str,
    report: SplitReport,
    digests: dict[bytes, str],
    skip_bad: bool,
    num_workers: int,
    progress: Progress,
) -> None:
    """Read the images that are there, and add what is wrong with them to the report."""
    images = report.annotations.images
    places = [place for place in range(len(images)) if place not in report.unusable]
    photos = read_images(
        report.annotations, report.images, places, num_workers=num_workers, skip_bad=skip_bad
    )
    for done, seen in enumerate(photos, start=1):
        progress(f"read images of {name}", done, len(places))
        if seen.finding is not None:
            report.unusable.add(seen.place)
            report.findings.append(seen.finding)
        if not seen.digest:
            continue
        record = images[seen.place]
        path = report.images.where(record["file_name"])
        first = digests.setdefault(seen.digest, path)
        if first != path:
            said = f"the same image as {first}"
            report.findings.append(
                Finding(
                    "counted", path, "", record["id"], "file_name", record["file_name"], "", said
                )
            )
    report.contents = True


def _other_categories(train: SplitReport, name: str, other: SplitReport) -> list[Finding]:
    """An error, if labels of the two splits would mean different classes."""
    wanted, got = (
        [category.id for category in each.annotations.categories] for each in (train, other)
    )
    # Where either file has other errors, its categories may be wrong because of them.
    if name == "test" or not wanted or not got or wanted == got:
        return []
    expected = f"the ids of {train.annotations.path.name}"
    file = str(other.annotations.path)
    return [Finding("error", file, "", None, "categories", f"ids {got}"[:120], expected)]
