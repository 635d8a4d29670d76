"""``botvision predict``."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    source: Annotated[Path, typer.Argument(help="Image, or folder of images.")],
    weights: Annotated[
        str, typer.Option(help="Weights file of a run, a published folder, or hf-hub:owner/name.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for images and predictions.json.")] = Path(
        "predictions"
    ),
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Smallest score to keep; 0.5 for detectors."),
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta", help="Horizontal-flip test-time augmentation (classifiers).")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip images that cannot be read.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Device, such as cpu or cuda:0; the best one if none.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the predictions as JSON.")] = False,
) -> None:
    """Detect objects in images, or classify them; write images and JSON.

    Example: botvision predict photos --weights runs/demo/run/best.safetensors
    """
    import json

    from botvision.cli.display import counting, open_console
    from botvision.images.decode import find_images
    from botvision.predict.files import predict_files
    from botvision.predict.loading import load

    console = open_console(as_json=as_json)
    paths = list(find_images(source))
    predictor = load(weights, device)
    with counting(console, "predict") as progress:
        content, writer = predict_files(
            predictor,
            paths,
            output,
            threshold=threshold,
            tta=tta,
            skip_bad=skip_bad,
            progress=progress,
        )
    if as_json:
        print(json.dumps(content))
        return
    for line in writer.summary():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if content["skipped"]:
        console.print(f"{len(content['skipped'])} images could not be read")
