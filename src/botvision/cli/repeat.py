"""``botvision repeat``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from botvision.benchmark.repetition import Repeated


def repeat(
    recipes: Annotated[list[str], typer.Argument(help="Names of recipes, or YAML files.")],
    data: Annotated[str, typer.Option(help="Data folder: COCO's layout, or class folders.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each recipe, seeds 0 and up.")] = 3,
    output: Annotated[
        Path, typer.Option(help="Folder of the runs, summary.json and summary.png.")
    ] = Path("runs/repeat"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override: training.epochs=3 (repeatable).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Train recipes with several seeds each; mean and standard deviation of what they reach.

    The same command goes on with what was interrupted, and adds runs where
    --seeds is larger.

    Example: botvision repeat small_cifar_resnet small_cifar_botnet --data CIFAR --seeds 3
    """
    import json
    from dataclasses import asdict
    from functools import partial

    from botvision.benchmark.repetition import repeat_recipes
    from botvision.cli.display import TrainingDisplay, open_console
    from botvision.recipes.reading import read_recipe

    changes = [*(overrides or ()), f"data.folder={json.dumps(data)}"]
    chosen = [read_recipe(name, changes) for name in recipes]
    console = open_console(as_json=as_json)
    rows = repeat_recipes(
        chosen,
        seeds,
        output,
        display=partial(TrainingDisplay.showing, console),
        note=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
    )
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        console.print(_table(rows))
        console.print(f"summary.json and summary.png are in {output}")


def _table(rows: "Sequence[Repeated]") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="At the end of each run")
    table.add_column("recipe", overflow="fold")
    for heading in ("metric", "runs", "mean", "deviation", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row.recipe),
            escape(row.metric),
            str(len(row.values)),
            f"{row.mean:.4f}",
            "-" if row.deviation is None else f"{row.deviation:.4f}",
            f"{row.seconds / 60:.1f}",
        )
    return table
