"""``botvision predict``."""

from pathlib import Path
from typing import Annotated

import typer

from botvision.cli.display import counting, open_console, print_plain
from botvision.cli.options import WEIGHTS_HELP, AsJson, Device, MaxDetections, SkipBad, Tta


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Images, folders, patterns, .txt lists of them, or - for a list on stdin.",
        ),
    ],
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)],
    output: Annotated[Path, typer.Option(help="Folder for images and predictions.json.")] = Path(
        "predictions"
    ),
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Smallest score to keep; 0.5 for detectors if none."),
    ] = None,
    max_detections: MaxDetections = None,
    save: Annotated[
        list[str] | None,
        typer.Option(
            help="What to write besides predictions.json (repeatable): jpg or png overlays, crops, "
            "masks, csv, coco (annotations with polygons), none. Overlays as jpg if not given."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most images in a batch.")] = 8,
    tta: Tta = False,
    skip_bad: SkipBad = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Detect objects in images, or classify them; write images and JSON.

    A job that was interrupted goes on where it stopped when the same command is given again.

    Example: botvision predict photos --weights runs/demo/run/best.safetensors

    Example: botvision predict "photos/**/*.jpg" more.txt --weights WEIGHTS --save csv --save coco
    """
    from botvision.images.own_files import OUTPUT_NAME
    from botvision.predict.files import predict_files
    from botvision.predict.loading import load
    from botvision.predict.sources import find_sources

    console = open_console(as_json=as_json)
    found = find_sources(sources)
    predictor = load(weights, device)
    with counting(console, "predict") as progress:
        report = predict_files(
            predictor,
            found.paths,
            output,
            threshold=threshold,
            tta=tta,
            skip_bad=skip_bad,
            max_detections=max_detections,
            save=save,
            batch_size=batch_size,
            progress=progress,
        )
    if as_json:
        print((output / OUTPUT_NAME).read_text(), end="")
        return
    if found.left_out:
        print_plain(console, found.note())
    if report.continued:
        console.print(f"{report.continued:,} images were done before, by an interrupted call")
    for line in report.lines:
        print_plain(console, line)
    if report.skipped:
        console.print(f"{len(report.skipped):,} images could not be read")
