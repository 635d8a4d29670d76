"""Whether a sound annotation file holds what training and evaluation need."""

from collections.abc import Iterator

from botvision.datasets.check.classes import same_name_faults
from botvision.datasets.check.findings import Finding, Severity
from botvision.datasets.coco.store import CocoAnnotations


def fitness_findings(annotations: CocoAnnotations, *, trained_on: bool) -> Iterator[Finding]:
    """Yield what a file lacks as a whole.

    Args:
        annotations: Annotation file.
        trained_on: Whether it is to be trained on, so that it must have classes and instances. A
            file that is only evaluated on may have none: its metrics are undefined.
    """
    file = str(annotations.path)
    yield from same_name_faults(annotations.path, annotations.categories)
    if trained_on and not annotations.categories:
        said = "categories: expected at least one class, got none"
        yield Finding("error", file, field="categories", value="[]", said=said)
    elif not (~annotations.instance_table().crowds).any():
        what = "train" if trained_on else "evaluate"
        said = f"no instance to {what} on: {_why_none(annotations)}"
        if not trained_on:
            said += "; without any the metrics are undefined and the last weights are the best"
        severity: Severity = "error" if trained_on else "counted"
        yield Finding(severity, file, field="annotations", value="0", said=said)


def boxes_as_masks(annotations: CocoAnnotations) -> Finding | None:
    """Return a finding about instances without a segmentation, whose boxes are taken as masks."""
    outlined = annotations.outlined()
    counted = ~annotations.instance_table().crowds
    without, total = int((counted & ~outlined).sum()), int(counted.sum())
    if not without:
        return None
    said = (
        f"{without:,} of {total:,} instances have no segmentation: their boxes are taken as masks; "
        "for boxes alone set model.detector=faster_rcnn"
    )
    file = str(annotations.path)
    return Finding("counted", file, field="segmentation", value=str(without), said=said)


def left_out_note(annotations: CocoAnnotations) -> str:
    """Return a line on the annotations of a file that are left out or changed; "" for none."""
    tally = annotations.tally
    parts = [
        f"{count:,} of {tally.records:,} annotations left out: {reason}"
        for reason, count in tally.skipped.items()
    ]
    parts += [f"{count:,} {what}" for what, count in tally.noted.items()]
    if tally.clipped:
        parts.append(f"{tally.clipped:,} boxes clipped at the image's edge")
    return f"{annotations.path.name}: {'; '.join(parts)}" if parts else ""


def _why_none(annotations: CocoAnnotations) -> str:
    tally = annotations.tally
    crowds = int(annotations.instance_table().crowds.sum())
    parts = []
    if crowds:
        parts.append(
            f"{crowds:,} of {tally.records:,} annotations are crowds (iscrowd 1); set iscrowd to 0 "
            "where they are single objects"
        )
    parts += [
        f"{count:,} of {tally.records:,} annotations left out: {reason}"
        for reason, count in annotations.skipped.items()
    ]
    return "; ".join(parts) or "the file has no annotations"
