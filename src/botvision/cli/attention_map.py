"""``botvision attention-map``."""

from pathlib import Path
from typing import Annotated

import typer

from botvision.cli.options import WEIGHTS_HELP
from botvision.errors import BotvisionError
from botvision.files import quoted


def attention_map(
    image: Annotated[Path, typer.Argument(help="Image.")],
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)],
    at: Annotated[str | None, typer.Option(help="Query pixel, as X,Y.")] = None,
    instance: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Detection whose pixels are the queries: its index among the image's detections "
            "in predictions.json, 0 for the best.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Smallest score of a detection, with --instance; 0.5."),
    ] = None,
    output: Annotated[Path, typer.Option(help="PNG to write.")] = Path("attention.png"),
) -> None:
    """Draw what a pixel or a detected instance attends to.

    One row per attention layer and one column per head; the last column is the mean over the heads,
    the last row the roll-out through all attention layers. Colors are multiples of uniform
    attention. An instance's maps are the means over the pixels of its mask, or of its box.

    --at is for detectors and classifiers; a classifier sees only the middle of the image.
    --instance is for detectors.

    Example: botvision attention-map photo.jpg --at 60,80 --weights runs/demo/run/best.safetensors

    Example: botvision attention-map photo.jpg --instance 0 --weights runs/demo/run/best.safetensors
    """
    from botvision.images.decode import read_image
    from botvision.inspection.attention_maps import (
        Instance,
        attention_of_instance,
        attention_of_pixel,
        draw_attention_maps,
    )
    from botvision.predict.loading import load

    if (at is None) == (instance is None):
        got = "neither" if at is None else "both"
        raise BotvisionError(f"expected one of --at and --instance, got {got}")
    if threshold is not None and instance is None:
        raise BotvisionError("--threshold: expected with --instance alone; leave it out")
    point = None if at is None else _pixel(at)
    pixels = read_image(image)
    if output.resolve() == image.resolve() or output.suffix.lower() != ".png":
        raise BotvisionError(f"--output {output}: expected a .png other than the image")
    if not output.parent.is_dir():
        raise BotvisionError(f"--output {output}: no such folder")
    predictor = load(weights)
    if point is not None:
        found = attention_of_pixel(predictor, pixels, point)
    else:
        assert instance is not None
        found = attention_of_instance(predictor, pixels, instance, threshold=threshold)
    draw_attention_maps(pixels, found.at, found.maps, output, rollout=found.rollout)
    if isinstance(found.at, Instance):
        what = f"instance {found.at.index}, {found.at.name} {found.at.score:.2f},"
    else:
        what = f"pixel {found.at[0]},{found.at[1]}"
    print(f"attention of {what} is in {quoted(output)}")


def _pixel(text: str) -> tuple[int, int]:
    x, _, y = text.partition(",")
    if not (x.strip().isdecimal() and y.strip().isdecimal()):
        raise BotvisionError(f"pixel {text}: expected X,Y in whole pixels, as 60,80")
    return int(x), int(y)
