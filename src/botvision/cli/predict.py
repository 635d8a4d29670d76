"""``botvision predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

_BARS_OF = 20  # images
_WIDTH = 24  # of the bar of a certain class


def predict(
    source: Annotated[Path, typer.Argument(help="Image, or folder of images.")],
    weights: Annotated[
        str, typer.Option(help="Weights file of a run, a published folder, or hf-hub:owner/name.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for images and predictions.json.")] = Path(
        "predictions"
    ),
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest score to keep (detectors).")
    ] = 0.5,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over mirrored images (classifiers).")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on without images that cannot be read.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the predictions as JSON.")] = False,
) -> None:
    """Find instances in images, or tell their classes; write images and JSON.

    Example: botvision predict photos --weights runs/demo/run/best.safetensors
    """
    import json

    from botvision.cli.display import counting, open_console
    from botvision.errors import BotvisionError
    from botvision.images.decode import find_images
    from botvision.predict import ClassPredictor, load
    from botvision.predict.class_files import predict_class_files
    from botvision.predict.result_files import predict_files

    console = open_console(as_json=as_json)
    paths = list(find_images(source))
    predictor = load(weights)
    classifies = isinstance(predictor, ClassPredictor)
    if tta and not classifies:
        raise BotvisionError(
            f"--tta: expected a classifier's weights, got a detector's, {weights}; leave it out"
        )
    with counting(console, "predict") as progress:
        if isinstance(predictor, ClassPredictor):
            content = predict_class_files(
                predictor, paths, output, tta=tta, skip_bad=skip_bad, progress=progress
            )
        else:
            content = predict_files(
                predictor, paths, output, score=score, skip_bad=skip_bad, progress=progress
            )
    if as_json:
        print(json.dumps(content))
        return
    if classifies:
        _print_bars(console, content["images"])
        console.print(f"predictions.json and predictions.jpg are in {output}")
    else:
        found, images = len(content["annotations"]), len(content["images"])
        console.print(f"{found} instances in {images} images; overlays are in {output}")
    if content["skipped"]:
        console.print(f"{len(content['skipped'])} images could not be read")


def _print_bars(console: "Console", images: list[dict[str, Any]]) -> None:
    """The most probable classes of each image, with bars."""
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for image in images[:_BARS_OF]:
        table.add_row(f"[bold]{escape(image['file_name'])}[/bold]")
        for number, each in enumerate(image["predicted"]):
            color = "dim" if number else "green"
            bar = "█" * max(1, round(_WIDTH * each["probability"]))
            figure = f"{each['probability']:.3f}"
            table.add_row(f"  {escape(each['class'])}", figure, f"[{color}]{bar}[/{color}]")
    console.print(table)
    if len(images) > _BARS_OF:
        console.print(f"and {len(images) - _BARS_OF} more")
