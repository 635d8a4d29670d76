"""``botvision attention-map``."""

from pathlib import Path
from typing import Annotated

import typer

from botvision.cli.options import WEIGHTS_HELP
from botvision.errors import BotvisionError
from botvision.files import quoted


def attention_map(
    image: Annotated[Path, typer.Argument(help="Image.")],
    at: Annotated[str, typer.Option(help="Query pixel, as X,Y.")],
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)],
    output: Annotated[Path, typer.Option(help="PNG to write.")] = Path("attention.png"),
) -> None:
    """Draw what a pixel attends to: one row per attention layer, one column per head.

    For detectors and classifiers. A classifier sees only the middle of the image.

    Example: botvision attention-map photo.jpg --at 60,80 --weights runs/demo/run/best.safetensors
    """
    from botvision.images.decode import read_image
    from botvision.predict.attention_maps import attention_maps, draw_attention_maps
    from botvision.predict.loading import load

    x, _, y = at.partition(",")
    if not (x.strip().isdecimal() and y.strip().isdecimal()):
        raise BotvisionError(f"pixel {at}: expected X,Y in whole pixels, as 60,80")
    pixels = read_image(image)
    if output.resolve() == image.resolve() or output.suffix.lower() != ".png":
        raise BotvisionError(f"--output {output}: expected a .png other than the image")
    if not output.parent.is_dir():
        raise BotvisionError(f"--output {output}: no such folder")
    point = (int(x), int(y))
    draw_attention_maps(pixels, point, attention_maps(load(weights), pixels, point), output)
    print(f"attention of pixel {point[0]},{point[1]} is in {quoted(output)}")
