"""``botvision data``."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make data sets.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Make data sets."""


@app.command()
def handwriting(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    train: Annotated[int, typer.Option(min=1, help="Training scenes.")] = 2000,
    val: Annotated[int, typer.Option(min=1, help="Validation scenes.")] = 200,
    size: Annotated[int, typer.Option(min=16, max=427, help="Side of a scene in pixels.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """Write the embedded data set, real handwriting on real photographs, as a COCO folder.

    Example: botvision data handwriting digits --train 500
    """
    from rich.console import Console

    from botvision.cli.display import counting
    from botvision.data.handwriting import write_handwriting

    with counting(Console(), "write scenes") as progress:
        write_handwriting(folder, train=train, val=val, size=size, seed=seed, progress=progress)
    print(f"{train} training and {val} validation scenes are in {folder}")
