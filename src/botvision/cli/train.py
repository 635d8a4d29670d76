"""``botvision train``."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from botvision.cli.display import TrainingDisplay, metrics_table, open_console, print_plain
from botvision.cli.options import DATA_HELP, AsJson, Overrides, SkipBad, with_keys
from botvision.errors import BotvisionError, nearest
from botvision.files import quoted


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or a YAML file; see --list.")
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(help="Backbone's weights: a file, a timm model's name, or hf-hub:OWNER/NAME."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; the recipe's if none.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with.")] = None,
    overrides: Overrides = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="A dry run: so many steps and an evaluation.")
    ] = None,
    auto_batch: Annotated[
        bool, typer.Option("--auto-batch", help="Measure how many images fit at once.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Run the backbone through torch.compile.")
    ] = False,
    skip_bad: SkipBad = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write a trace of steps 4 to 6, profile.json.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the whole recipe; no run.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes; no run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network as a recipe says, or go on with a run.

    Example: botvision train demo --data handwriting --set training.epochs=3

    On: botvision train --resume runs/instance_segmentation/demo

    On 8 GPUs: torchrun --nproc-per-node 8 --no-python botvision train table5_botnet101 --data COCO
    """
    from botvision.cli.recipes import print_recipe, print_recipes
    from botvision.recipes.reading import read_recipe, recipe_names

    if list_recipes:
        print_recipes(as_json=as_json)
        return
    if (recipe is None) == (resume is None):
        raise BotvisionError("train: expected a recipe or --resume RUN, and not both")
    console = open_console(as_json=as_json)
    display = partial(TrainingDisplay.showing, console)
    changes = with_keys(
        overrides,
        data__folder=data,
        model__backbone_weights=backbone_weights,
        training__max_steps=max_steps,
        training__compile=compiled or None,
        data__skip_bad=skip_bad or None,
    )
    if resume is not None:
        if name is not None or auto_batch:
            raise BotvisionError(
                "--resume continues the run as it is; drop --name and --auto-batch"
            )
        from botvision.recipes.running import resume_run

        metrics = resume_run(resume, display=display, overrides=changes, profile=profile)
        _report(resume, metrics, as_json=as_json)
        return
    assert recipe is not None
    if not recipe.endswith((".yaml", ".yml")) and recipe not in recipe_names():
        raise BotvisionError(
            f"recipe {recipe!r} is unknown{nearest(recipe, recipe_names()) or ';'} botvision train "
            "--list lists the recipes; a file ends in .yaml"
        )
    chosen = read_recipe(recipe, changes)
    if show:
        print_recipe(chosen)
        return
    if chosen.data.folder is None:
        raise BotvisionError("train: expected a data folder, got none; give --data FOLDER")
    # Accelerate and the loop, not needed to say that a recipe is wrong.
    from botvision.recipes.running import new_run_path, train_recipe

    if auto_batch:
        from botvision.recipes.auto_batch import with_largest_batch

        chosen = with_largest_batch(chosen, note=console.print)
    path = new_run_path(runs, chosen) if name is None else runs / chosen.kind / name
    _report(path, train_recipe(chosen, path, display=display, profile=profile), as_json=as_json)


def _report(path: Path, metrics: dict[str, Any], *, as_json: bool) -> None:
    """Print the last metrics, once however many processes there are."""
    from botvision.processes import processes
    from botvision.recipes.reading import read_recipe

    if not processes().is_main_process:
        return
    if as_json:
        print(json.dumps({"run": str(path), "metrics": metrics}))
        return
    console = open_console(as_json=False)
    task = read_recipe(str(path / "recipe.yaml")).task
    console.print(metrics_table(task, metrics, "Validation"))
    print_plain(console, f"Everything is in {quoted(path)}")
