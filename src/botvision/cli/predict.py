"""``botvision predict``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from botvision.cli.display import counting, open_console, print_plain
from botvision.cli.options import WEIGHTS_HELP, AsJson, Device, MaxDetections, SkipBad, Tta


def predict(
    source: Annotated[Path, typer.Argument(help="Image, or folder of images.")],
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)],
    output: Annotated[Path, typer.Option(help="Folder for images and predictions.json.")] = Path(
        "predictions"
    ),
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Smallest score to keep; 0.5 for detectors if none."),
    ] = None,
    max_detections: MaxDetections = None,
    tta: Tta = False,
    skip_bad: SkipBad = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Detect objects in images, or classify them; write images and JSON.

    Example: botvision predict photos --weights runs/demo/run/best.safetensors
    """
    from botvision.images.find import find_images
    from botvision.predict.files import predict_files
    from botvision.predict.loading import load

    console = open_console(as_json=as_json)
    found = find_images(source)
    predictor = load(weights, device)
    with counting(console, "predict") as progress:
        content, writer = predict_files(
            predictor,
            found.paths,
            output,
            threshold=threshold,
            tta=tta,
            skip_bad=skip_bad,
            max_detections=max_detections,
            progress=progress,
        )
    if as_json:
        print(json.dumps(content))
        return
    if found.left_out:
        print_plain(console, found.note())
    for line in writer.summary():
        print_plain(console, line)
    if content["skipped"]:
        console.print(f"{len(content['skipped'])} images could not be read")
