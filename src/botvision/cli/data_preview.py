"""``botvision data preview``."""

from pathlib import Path
from typing import Annotated

import typer


def preview(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")],
    data: Annotated[str, typer.Option(help="Data folder: COCO's layout, or class folders.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override: data.copy_paste=0.5 (repeatable)."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Image to write.")] = Path("preview.jpg"),
    count: Annotated[int, typer.Option(min=1, max=16, help="Images.")] = 16,
    epoch: Annotated[int, typer.Option(min=0, help="Epoch that begins with them.")] = 0,
) -> None:
    """Draw what a model will see: images as a recipe augments them, with their targets.

    They are the first ones of the epoch, exactly as the training gets them.

    Example: botvision data preview finetune --data my_set --set data.copy_paste=0.5
    """
    import json

    from botvision.recipes.preview import draw_preview
    from botvision.recipes.reading import read_recipe

    chosen = read_recipe(recipe, [*(overrides or ()), f"data.folder={json.dumps(data)}"])
    drawn = draw_preview(chosen, output, count=count, epoch=epoch)
    print(f"{drawn} images of epoch {epoch} are in {output}")
