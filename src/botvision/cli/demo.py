"""``botvision demo``."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from botvision.cli.display import (
    TrainingDisplay,
    counting,
    metrics_table,
    open_console,
    print_plain,
)
from botvision.cli.options import AsJson
from botvision.files import quoted

_WRITTEN = {
    "data": "the scenes, a COCO folder",
    "run": "the run: recipe, metrics, curves, weights",
    "run/val_predictions.jpg": "truth (left) and predictions (right)",
    "predictions": "predictions drawn on validation scenes",
    "attention.png": "where a position looks: by layer and head, and through all layers",
    "summary.json": "the figures and what made them",
}


def demo(
    output: Annotated[Path, typer.Option(help="Folder for everything the demo writes.")] = Path(
        "runs/demo"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke run; its figures mean nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier demo in the folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The main job end to end: write real handwriting scenes, train, evaluate, draw.

    Example: botvision demo --quick --output runs/try
    """
    from botvision.demo import run_demo

    console = open_console(as_json=as_json)
    summary = run_demo(
        output,
        quick=quick,
        overwrite=overwrite,
        display=partial(TrainingDisplay.showing, console),
        counting=partial(counting, console),
    )
    if as_json:
        print(json.dumps(summary))
        return
    console.print(metrics_table("detection", summary["metrics"], "Validation scenes, best weights"))
    console.print(
        f"box AP {summary['box_ap']:.3f}, mask AP {summary['mask_ap']:.3f} "
        f"in {summary['seconds']:.0f} s"
    )
    for name, what in _WRITTEN.items():
        print_plain(console, f"  {quoted(output / name)}: {what}")
