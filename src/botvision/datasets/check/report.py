"""The report on a COCO folder: all that is wrong with it, counts, and figures."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from botvision.datasets.check.classes import matched_classes, same_name_faults
from botvision.datasets.check.findings import Finding, Severity
from botvision.datasets.check.fitness import boxes_as_masks, fitness_findings
from botvision.datasets.check.images import find_images, read_images, sample_sheet
from botvision.datasets.check.statistics import count_statistics, draw_statistics
from botvision.datasets.coco.file import read_arrays
from botvision.datasets.coco.store import CocoAnnotations
from botvision.datasets.layouts import CocoSplit, coco_splits, find_coco_split
from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.shards.mirror import open_data_folder
from botvision.shards.read import ImageSource, open_images

Progress = Callable[[str, int, int], None]

_SHORTEST_SIDE = 32  # pixels: one position of the network's last map
_TRAINED_ON = ("train", "val")


@dataclass
class SplitReport:
    """Result of the check of one split.

    Attributes:
        where: Annotation file and image folder.
        images: Images of the folder.
        annotations: Sound part of the annotation file.
        findings: All findings.
        unusable: Indices of the image records whose images cannot be used.
        contents: Whether the images were read whole.
    """

    where: CocoSplit
    images: ImageSource
    annotations: CocoAnnotations
    findings: list[Finding]
    unusable: set[int] = field(default_factory=set)
    contents: bool = False

    def summary(self) -> dict[str, Any]:
        """Return counts for JSON; accepted, skipped and refused ones add up to the total."""
        tally = self.annotations.tally
        skipped_images = sum(f.severity == "skipped" and not f.where for f in self.findings)
        return {
            **count_statistics(self.annotations),
            "file": str(self.where.annotations),
            "images_read": self.contents,
            "annotations": {
                "total": tally.records,
                "accepted": len(self.annotations.instance_table().crowds),
                "skipped": sum(tally.skipped.values()),
                "refused": tally.refused,
            },
            "image_files": {
                "total": len(self.annotations.images),
                "accepted": len(self.annotations.images) - len(self.unusable),
                "skipped": skipped_images,
                "refused": len(self.unusable) - skipped_images,
            },
        }


@dataclass
class DataReport:
    """Result of the check of a folder.

    Attributes:
        folder: Data folder.
        splits: Result of each split.
        findings: Findings about the folder as a whole.
    """

    folder: Path
    splits: dict[str, SplitReport] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def all_findings(self) -> list[Finding]:
        """Return the findings of the folder and of all splits."""
        return [*self.findings, *(f for each in self.splits.values() for f in each.findings)]

    @property
    def trainable(self) -> bool:
        """Whether training would take the data."""
        return all(finding.severity != "error" for finding in self.all_findings())

    def as_json(self) -> dict[str, Any]:
        """Return the whole report for JSON."""
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
    folder: str | Path,
    splits: Sequence[str] = (),
    *,
    contents: bool = True,
    skip_bad: bool = False,
    image_size: int = 1024,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Check a COCO folder and list all that is wrong with it.

    Args:
        folder: COCO folder, see ``layouts.find_coco_split``; or the address of one in shards.
        splits: Names of the splits to check; all that there are if none is given.
        contents: Whether to read the images, and not only to look whether they are there.
        skip_bad: Whether training is to leave out images that cannot be read.
        image_size: Image size of training in pixels; objects that get too small are counted, and
            images whose shorter side vanishes refused.
        num_workers: Number of worker processes that read images; None for one per processor, at
            most 8.
        progress: Called with a title, the number of images done and the total.

    Raises:
        BotvisionError: If there is no such folder or split.
    """
    if num_workers is None:
        num_workers = min(8, os.cpu_count() or 1)
    folder = open_data_folder(str(folder))
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
            shown = partial(progress, f"read images of {name}") if progress else None
            _read_split(each, digests, skip_bad, num_workers, shown)
        if each.unusable and len(each.unusable) == len(each.annotations.images):
            file, said = str(where.annotations), "no image can be read"
            each.findings.append(Finding("error", file, field="images", said=said))
        if all(finding.severity != "error" for finding in each.findings):
            each.findings += fitness_findings(each.annotations, trained_on=name == "train")
            if boxes := boxes_as_masks(each.annotations):
                each.findings.append(boxes)
    if "train" in report.splits:
        for name, each in report.splits.items():
            each.findings += _other_categories(report.splits["train"], name, each)
    return report


def save_figures(report: DataReport, folder: Path) -> list[Path]:
    """Write ``<split>_statistics.png`` and ``<split>_samples.jpg`` of every split.

    Args:
        report: Result of the check.
        folder: Folder to write to; it is made if it is not there.

    Returns:
        The files; there are no samples of a split without an image that can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, split in report.splits.items():
        written.append(folder / f"{name}_statistics.png")
        draw_statistics(split.annotations, written[-1])
        if sheet := sample_sheet(split.annotations, split.images, split.unusable):
            written.append(folder / f"{name}_samples.jpg")
            with replacing(written[-1]) as temporary:
                sheet.save(temporary)
    return written


def _missing_splits(folder: Path) -> list[Finding]:
    """Return errors about the splits that training wants by default."""
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
    """Check all but the contents of the images."""
    findings: list[Finding] = []
    arrays = read_arrays(where.annotations, findings.append)
    annotations, images = CocoAnnotations(where.annotations, arrays), open_images(where.images)
    report = SplitReport(where, images, annotations, findings)
    refused = any(finding.severity == "error" for finding in findings)
    if not len(report.annotations.images) and not refused:
        findings.append(
            Finding("error", str(where.annotations), "", None, "images", "none", "at least one")
        )
    for index, fault in find_images(annotations, images, skip_bad=skip_bad, image_size=image_size):
        if fault is not None:
            report.unusable.add(index)
            findings.append(fault)
    findings += _counted(report, image_size)
    return report


def _counted(report: SplitReport, image_size: int) -> Iterable[Finding]:
    """Yield findings that training accepts, but people may not know of."""
    annotations = report.annotations
    file = str(annotations.path)
    table = annotations.instance_table()
    counts = np.bincount(table.image_index[~table.crowds], minlength=len(annotations.images))
    if empty := int((counts == 0).sum()):
        said = f"{empty:,} images without an instance: they count as negatives"
        yield Finding("counted", file, "images", value=str(empty), said=said)
    sizes = annotations.image_sizes
    scales = image_size / sizes.max(axis=1, initial=1.0)
    sides = table.boxes[:, 2:].min(axis=1, initial=np.inf) * scales[table.image_index]
    if lost := int((sides[~table.crowds] < 1).sum()):
        said = f"{lost:,} instances below a pixel at image size {image_size}: training drops them"
        yield Finding("counted", file, "annotations", field="bbox", value=str(lost), said=said)
    narrow = (sizes.min(axis=1, initial=np.inf) * np.minimum(scales, 1)) < _SHORTEST_SIDE
    for index in np.flatnonzero(narrow).tolist():
        record = annotations.images[index]
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
    report: SplitReport,
    digests: dict[bytes, str],
    skip_bad: bool,
    num_workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Read the images that are there, and add their faults to the report."""
    images = report.annotations.images
    indices = [index for index in range(len(images)) if index not in report.unusable]
    results = read_images(
        report.annotations, report.images, indices, num_workers=num_workers, skip_bad=skip_bad
    )
    for done, seen in enumerate(results, start=1):
        if progress:
            progress(done, len(indices))
        if seen.finding is not None:
            report.unusable.add(seen.index)
            report.findings.append(seen.finding)
        if not seen.digest:
            continue
        record = images[seen.index]
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
    """Return a finding if a split has classes that the training split does not have."""
    classes, own = train.annotations.categories, other.annotations.categories
    # Where either file has other errors, its categories may be wrong because of them.
    if not classes or not own or any(same_name_faults(Path(), each) for each in (classes, own)):
        return []
    file = other.annotations.path
    try:
        matched_classes(file, own, classes, train.annotations.path.name)
    except BotvisionError as error:
        # Nothing but a later evaluation needs other splits than those of the training.
        severity: Severity = "error" if name in _TRAINED_ON else "counted"
        said = str(error).removeprefix(f"{file}: ")
        return [Finding(severity, str(file), "", None, "categories", said=said)]
    return []
