"""``botvision data check``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from botvision.cli.display import counting_steps, open_console
from botvision.cli.options import AsJson

if TYPE_CHECKING:
    from botvision.datasets.check.report import DataReport

_SHOWN = 20  # findings of each severity; --json has all


def check(
    folder: Annotated[str, typer.Argument(help="COCO folder, or the address of one in shards.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Split to check (repeatable); all if none.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Look whether images are there; do not read them.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count unreadable images as left out, not as errors.")
    ] = False,
    size: Annotated[
        int, typer.Option(min=32, help="Image size of training: what gets too small is counted.")
    ] = 1024,
    output: Annotated[
        Path | None, typer.Option(help="Folder for figures of counts and samples.")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; one per processor if none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all that is wrong with a COCO folder, and count what it holds.

    Training refuses data with errors, and continues without what is skipped
    or clipped. The exit status is 0 if training would accept the data,
    else 2. Nothing in FOLDER is changed.

    Example: botvision data check my_coco_set --output report
    """
    from botvision.datasets.check.report import check_folder, save_figures

    with counting_steps(open_console(as_json=as_json)) as progress:
        report = check_folder(
            folder,
            split or (),
            contents=not fast,
            skip_bad=skip_bad,
            image_size=size,
            num_workers=num_workers,
            progress=progress,
        )
    written = [] if output is None else save_figures(report, output)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        _print(report)
        for path in written:
            print(f"figure: {path}")
    if not report.trainable:
        raise typer.Exit(2)


def _print(report: "DataReport") -> None:
    for name, split in report.splits.items():
        _print_summary(name, split.summary())
    findings = report.all_findings()
    for severity in ("counted", "clipped", "skipped", "error"):
        own = [finding for finding in findings if finding.severity == severity]
        for finding in own[:_SHOWN]:
            print(f"{severity}: {finding.message}")
        if len(own) > _SHOWN:
            print(f"{severity}: {len(own) - _SHOWN:,} more; --json lists all")
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{errors:,} errors: training would refuse this" if errors else "ready to train on")


def _print_summary(name: str, summary: dict[str, Any]) -> None:
    print(f"{name}: {summary['file']}")
    for what, key in (("images", "image_files"), ("annotations", "annotations")):
        parts = summary[key]
        print(
            f"  {what}: {parts['accepted']:,} accepted + {parts['skipped']:,} skipped + "
            f"{parts['refused']:,} refused = {parts['total']:,}"
        )
    print(f"  {summary['instances']:,} instances, {summary['crowds']:,} crowds besides")
    print(f"  {summary['images_without_instances']:,} images without an instance")
    print("  sizes:", ", ".join(f"{count:,} {size}" for size, count in summary["sizes"].items()))
    classes = summary["instances_per_class"]
    print("  classes:", ", ".join(f"{each} {count:,}" for each, count in classes.items()))
    if not summary["images_read"]:
        print("  the images were not read (--fast)")
    for reason, count in summary["skipped"].items():
        print(f"  skipped: {count:,}: {reason}")
    if summary["clipped"]:
        print(f"  clipped at the edge: {summary['clipped']:,}")
