"""``botvision repeat``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from botvision.cli.display import TrainingDisplay, figure_columns, open_console, print_plain
from botvision.cli.options import AsJson, Data, Overrides, with_keys
from botvision.files import quoted

if TYPE_CHECKING:
    from botvision.benchmark.repetition import Repeated


def repeat(
    recipes: Annotated[list[str], typer.Argument(help="Names of recipes, or YAML files.")],
    data: Data,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each recipe, seeds 0 and up.")] = 3,
    output: Annotated[
        Path, typer.Option(help="Folder of the runs, summary.json and summary.png.")
    ] = Path("runs/repeat"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train recipes with several seeds each; mean and standard deviation of what they reach.

    The same command resumes interrupted runs, and adds runs where
    --seeds is larger.

    Example: botvision repeat small_cifar_resnet small_cifar_botnet --data CIFAR --seeds 3
    """
    from botvision.benchmark.repetition import repeat_recipes
    from botvision.recipes.reading import read_recipe

    console = open_console(as_json=as_json)
    rows = repeat_recipes(
        [read_recipe(name, with_keys(overrides, data__folder=data)) for name in recipes],
        seeds,
        output,
        display=partial(TrainingDisplay.showing, console),
        note=partial(print_plain, console),
    )
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        console.print(_table(rows))
        print_plain(console, f"summary.json and summary.png are in {quoted(output)}")


def _table(rows: "Sequence[Repeated]") -> Table:
    figures = figure_columns("metric", "runs", "mean", "deviation", "minutes")
    table = Table(Column("recipe", overflow="fold"), *figures, title="At the end of each run")
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
