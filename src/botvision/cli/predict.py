"""``botvision predict``."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    source: Annotated[Path, typer.Argument(help="Picture, or folder of pictures.")],
    weights: Annotated[Path, typer.Option(help="Weights file of a run.")],
    output: Annotated[Path, typer.Option(help="Folder for overlays and predictions.json.")] = Path(
        "predictions"
    ),
    score: Annotated[float, typer.Option(min=0, max=1, help="Smallest score to keep.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the predictions as JSON.")] = False,
) -> None:
    """Find instances in pictures; write overlays and COCO-results JSON.

    Example: botvision predict photos --weights runs/demo/run/best.safetensors
    """
    import json

    from botvision.cli.display import counting, open_console
    from botvision.data.images import find_images
    from botvision.predict import load
    from botvision.predict.result_files import predict_files

    console = open_console(as_json=as_json)
    paths = list(find_images(source))
    predictor = load(weights)
    with counting(console, "predict") as progress:
        content = predict_files(predictor, paths, output, score=score, progress=progress)
    if as_json:
        print(json.dumps(content))
    else:
        found, pictures = len(content["annotations"]), len(content["images"])
        console.print(f"{found} instances in {pictures} pictures; overlays are in {output}")
