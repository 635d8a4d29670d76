"""``botvision val``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from botvision.cli.display import counting, metrics_table, open_console, print_plain
from botvision.cli.options import (
    WEIGHTS_HELP,
    AsJson,
    DataOfTraining,
    Device,
    MaxDetections,
    Split,
    Tta,
)
from botvision.files import quoted


def val(
    weights: Annotated[str, typer.Argument(help=WEIGHTS_HELP)],
    data: DataOfTraining = None,
    split: Split = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per batch; as in the training if none.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, help="Side in pixels; that of the training if none.")
    ] = None,
    max_detections: MaxDetections = None,
    tta: Tta = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unreadable images, and count them.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Folder for figures (classifiers).")] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a detector with COCO metrics, or a classifier with its accuracy and calibration.

    Example: botvision val runs/demo/run/best.safetensors --data runs/demo/data

    Example: botvision val runs/classification/NAME/best.safetensors --tta --output figures
    """
    from botvision.predict.evaluation import evaluate
    from botvision.predict.loading import load

    console = open_console(as_json=as_json)
    predictor = load(weights, device, image_size=image_size)
    notes: list[str] = []
    with counting(console, "evaluate") as progress:
        metrics = evaluate(
            predictor,
            data,
            split=split,
            batch_size=batch_size,
            tta=tta,
            skip_bad=skip_bad,
            max_detections=max_detections,
            output=output,
            progress=progress,
            note=notes.append,
        )
    if as_json:
        print(json.dumps(metrics))
    else:
        title = f"{weights} on {split or 'the validation split'}"
        console.print(metrics_table(predictor.description.task, metrics, title))
    for line in notes:
        print_plain(console, line)
    if as_json:
        return
    if "skipped" in metrics and (skip_bad or metrics["skipped"]):
        console.print(f"{metrics['images']} images; {metrics['skipped']} more could not be read")
    if output is not None:
        print_plain(console, f"the figures are in {quoted(output)}")
