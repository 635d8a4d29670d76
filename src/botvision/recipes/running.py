"""Training from a recipe: builds the task and the run folder and starts the loop."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from botvision.errors import BotvisionError
from botvision.processes import processes
from botvision.recipes.reading import read_recipe
from botvision.recipes.schema import Recipe
from botvision.tasks.task import Trainable, find_task
from botvision.training.log import ShowRun
from botvision.training.loop import train as run_loop
from botvision.training.run_folder import RunFolder, run_folder_exists
from botvision.training.runs import Run, read_run


def train(
    recipe: str | Path,
    data: str | Path | None = None,
    *,
    backbone_weights: str | Path | None = None,
    name: str | None = None,
    runs: str | Path = "runs",
    overrides: Sequence[str] = (),
    display: ShowRun | None = None,
    **training: Any,
) -> Run:
    """Train a model from a recipe in a new run folder.

    Args:
        recipe: Name of a recipe of the package, or path of a YAML file.
        data: Data folder or its address; None: the recipe's.
        backbone_weights: Weights to start the backbone from, see
            ``botvision.weights.checkpoints.read_checkpoint``; None: the recipe's.
        name: Name of the run folder; None: the recipe's name, with a number if it is taken.
        runs: Folder of the runs.
        overrides: "key.key=value" for any key of the recipe, such as "model.image_size=512".
        display: Shows the run while it goes on; None: silent.
        training: Keys of the recipe's ``training``, such as ``epochs=20``.

    Returns:
        The run: ``best`` is its weights file, ``metrics`` those of the best evaluation.

    Raises:
        BotvisionError: If the recipe, the data or the folder cannot be used.
        Interrupted: If Ctrl-C or SIGTERM asked the run to stop; its state is saved.
    """
    keys = {"data.folder": data, "model.backbone_weights": backbone_weights}
    values = {key: str(value) for key, value in keys.items() if value is not None}
    values |= {f"training.{key}": value for key, value in training.items()}
    changes = [*overrides, *(f"{key}={json.dumps(value)}" for key, value in values.items())]
    chosen = read_recipe(str(recipe), changes)
    folder = Path(runs)
    path = new_run_path(folder, chosen) if name is None else folder / chosen.kind / name
    train_recipe(chosen, path, display=display)
    return read_run(path)


def train_recipe(
    recipe: Recipe, path: Path, *, display: ShowRun | None = None, profile: bool = False
) -> dict[str, Any]:
    """Train as a recipe says, in a new run folder.

    The data and the model are built first, so that a mistake in either leaves no folder behind; nor
    does a failure in the first step.

    Args:
        recipe: The recipe; its ``data.folder`` must be set.
        path: The run folder to make.
        display: Shows the run, see ``training.loop.train``; None: silent.
        profile: Write a trace of a few steps.

    Returns:
        The metrics of the last evaluation.

    Raises:
        BotvisionError: If the recipe, the data or the folder cannot be used.
        Interrupted: If Ctrl-C or SIGTERM asked the run to stop; its state is saved.
    """
    main = processes().is_main_process
    if main and path.exists():
        raise run_folder_exists(path)
    task = build_task(recipe)
    if main:
        RunFolder.create(path, recipe.model_dump(mode="json"))
    processes().wait_for_everyone()
    folder = RunFolder.open(path)
    try:
        return run_loop(task, recipe.training, folder, display=display, profile=profile)
    except BaseException:
        if main:
            folder.discard_unused()
        raise


def resume_run(
    path: Path,
    *,
    display: ShowRun | None = None,
    overrides: tuple[str, ...] = (),
    profile: bool = False,
) -> dict[str, Any]:
    """Resume an interrupted run with its own recipe.

    Args:
        path: The run folder.
        display: Shows the run, see ``training.loop.train``; None: silent.
        overrides: Overrides of keys that change no result, such as "training.num_workers=0".
        profile: Write a trace of a few steps.

    Returns:
        The metrics of the last evaluation.

    Raises:
        BotvisionError: If the folder is no run or holds no state, or the recipe has changed.
        Interrupted: If Ctrl-C or SIGTERM asked the run to stop; its state is saved.
    """
    folder = RunFolder.open(path)
    recipe = read_recipe(str(folder.recipe), overrides)
    return run_loop(
        build_task(recipe), recipe.training, folder, display=display, resume=True, profile=profile
    )


def build_task(recipe: Recipe) -> Trainable:
    """Build the data and the model of a recipe.

    Raises:
        BotvisionError: If either cannot be used.
    """
    task = find_task(recipe.task)
    if recipe.data.folder is None:
        raise BotvisionError(f"data.folder: expected {task.data_kind}, got none")
    trainable = task.build(recipe)
    content = {"recipe": recipe.model_dump(mode="json")}
    trainable.description = trainable.description.model_copy(update=content)
    return trainable


def new_run_path(runs: Path, recipe: Recipe) -> Path:
    """Return ``runs/<kind>/<name>``, or ``<name>-2`` and so on if it is taken."""
    first = runs / recipe.kind / recipe.name
    path, number = first, 2
    while path.exists():
        path = first.with_name(f"{first.name}-{number}")
        number += 1
    processes()  # sets up what the broadcast goes over
    return Path(broadcast_object_list([str(path)])[0])  # the main process's, before it is made
