"""``botvision val``."""

from pathlib import Path
from typing import Annotated

import typer


def val(
    weights: Annotated[Path, typer.Argument(help="Weights file of a run, as best.safetensors.")],
    data: Annotated[
        Path | None, typer.Option(help="COCO folder; the one of the training if none.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data.")] = "val",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 8,
    image_size: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the images in pixels; that of the training if none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Evaluate a detector with COCO metrics.

    Example: botvision val runs/demo/run/best.safetensors --data runs/demo/data
    """
    import json

    from botvision.cli.display import counting, metrics_table, open_console
    from botvision.predict.evaluation import evaluate_weights

    console = open_console(as_json=as_json)
    with counting(console, "evaluate") as progress:
        metrics = evaluate_weights(
            weights,
            data,
            split=split,
            batch_size=batch_size,
            image_size=image_size,
            progress=progress,
        )
    if as_json:
        print(json.dumps(metrics))
    else:
        console.print(metrics_table(metrics, title=f"{weights} on {split}"))
