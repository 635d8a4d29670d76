"""The part of the data check that every training begins with."""

from accelerate.utils import gather_object

from botvision.datasets.check.findings import Finding
from botvision.datasets.check.fitness import boxes_as_masks, fitness_findings, left_out_note
from botvision.datasets.check.images import find_images, read_images
from botvision.datasets.coco.dataset import CocoInstances
from botvision.errors import BotvisionError
from botvision.processes import processes


def check_images(
    data: CocoInstances,
    *,
    skip_bad: bool = False,
    num_workers: int = 0,
    image_size: int | None = None,
) -> str:
    """Look for the images of a data set, so that none is missed in the third hour of a run.

    Args:
        data: Data set; images that are left out are removed from it.
        skip_bad: Whether to read every image and leave out those that cannot be read; the
            processes of a run share that work and come to the same result.
        num_workers: Number of worker processes.
        image_size: Side of the detector's input in pixels, for which an image may be too narrow;
            None: any image will do.

    Returns:
        A line on the images left out; empty if there are none.

    Raises:
        BotvisionError: If an image is missing, empty, too narrow or outside its folder; with
            ``skip_bad``, if it is outside or its size is not the annotation's.
    """
    where = data.annotations, data.images
    found = list(find_images(*where, skip_bad=skip_bad, image_size=image_size))
    findings = [finding for _, finding in found if finding is not None]
    if skip_bad:
        there = [index for index, finding in found if finding is None]
        mine = there[processes().process_index :: processes().num_processes]
        seen = read_images(*where, mine, num_workers=num_workers, skip_bad=True)
        findings += gather_object([each.finding for each in seen if each.finding is not None])
    _raise_first([finding for finding in findings if finding.severity == "error"])
    if not findings:
        return ""
    total = len(data)
    data.leave_out([finding.id for finding in findings if finding.id is not None])
    return (
        f"{len(findings):,} of {total:,} images of {data.annotations.path.name} left out: "
        f"{findings[0].message}{_others(findings)}"
    )


def check_contents(data: CocoInstances, *, trained_on: bool, masks: bool) -> list[str]:
    """Check that an annotation file holds what training and evaluation need.

    Args:
        data: Data set.
        trained_on: Whether it is trained on, and not only evaluated on.
        masks: Whether masks are needed besides boxes.

    Returns:
        Lines on what is left out or missing without being a fault.

    Raises:
        BotvisionError: If there is nothing to train on, or two classes have one name.
    """
    findings = list(fitness_findings(data.annotations, trained_on=trained_on))
    _raise_first([finding for finding in findings if finding.severity == "error"])
    if masks and (boxes := boxes_as_masks(data.annotations)):
        findings.append(boxes)
    name = data.annotations.path.name
    return [
        note
        for note in (left_out_note(data.annotations), *(f"{name}: {f.said}" for f in findings))
        if note
    ]


def _raise_first(errors: list[Finding]) -> None:
    if errors:
        hint = "botvision data check lists all that is wrong"
        raise BotvisionError(f"{errors[0].message}{_others(errors)}; {hint}")


def _others(findings: list[Finding]) -> str:
    return f", and {len(findings) - 1:,} more" if len(findings) > 1 else ""
