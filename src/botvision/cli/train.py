"""``botvision train``."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or a YAML file; see --list.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="COCO folder: images/, annotations/instances_*.json.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; the recipe's if none.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override: training.epochs=3 (repeatable).")
    ] = None,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Train a detector on a COCO folder, or go on with a run.

    Example: botvision train demo --data handwriting --set training.epochs=3
    """
    import json

    from botvision.cli.display import TrainingDisplay, metrics_table, open_console
    from botvision.errors import BotvisionError
    from botvision.recipes.reading import read_recipe, recipe_names

    if list_recipes:
        print("\n".join(recipe_names()))
        return
    if (recipe is None) == (resume is None):
        raise BotvisionError("train: expected a recipe or --resume RUN, and not both")
    console = open_console(as_json=as_json)
    display = partial(TrainingDisplay.showing, console)
    if resume is not None:
        if data is not None or name is not None or overrides:
            raise BotvisionError("--resume goes on with the run's own recipe; drop the others")
        from botvision.recipes.running import resume_run

        path = resume
        metrics = resume_run(path, display=display)
    else:
        assert recipe is not None
        changes = list(overrides or ())
        if data is not None:
            changes.append(f"data.folder={json.dumps(str(data))}")
        chosen = read_recipe(recipe, changes)
        # Accelerate and the loop, not needed to say that a recipe is wrong.
        from botvision.recipes.running import new_run_path, train_recipe

        path = new_run_path(runs, chosen) if name is None else runs / chosen.task / name
        metrics = train_recipe(chosen, path, display=display)
    if as_json:
        print(json.dumps({"run": str(path), "metrics": metrics}))
    else:
        console.print(metrics_table(metrics, title="Validation"))
        console.print(f"Everything is in {path}")
