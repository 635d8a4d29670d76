"""Training from a recipe: builds the task and the run folder and starts the loop."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from botvision.detection.task import DetectionTask
from botvision.errors import BotvisionError
from botvision.processes import processes
from botvision.recipes.reading import read_recipe
from botvision.recipes.schema import Recipe
from botvision.training.loop import Display, train
from botvision.training.run_folder import RunFolder, run_folder_exists

ShowRun = Callable[[int, int], AbstractContextManager[Display]]


def train_recipe(recipe: Recipe, path: Path, *, display: ShowRun) -> dict[str, Any]:
    """Train as a recipe says, in a new run folder.

    The data and the model are built first, so that a mistake in either leaves no folder behind.

    Args:
        recipe: The recipe; its ``data.folder`` must be set.
        path: The run folder to make.
        display: Shows the run, see ``training.loop.train``.

    Returns:
        The metrics of the last evaluation.

    Raises:
        BotvisionError: If the recipe, the data or the folder cannot be used.
    """
    main = processes().is_main_process
    if main and path.exists():
        raise run_folder_exists(path)
    task = _build(recipe)
    if main:
        RunFolder.create(path, recipe.model_dump(mode="json"))
    processes().wait_for_everyone()
    folder = RunFolder.open(path)
    return train(task, recipe.training, folder, display=display)


def resume_run(path: Path, *, display: ShowRun) -> dict[str, Any]:
    """Go on with a run that was interrupted, with its own recipe.

    Raises:
        BotvisionError: If the folder is no run or holds no state.
    """
    folder = RunFolder.open(path)
    recipe = read_recipe(str(folder.recipe))
    return train(_build(recipe), recipe.training, folder, display=display, resume=True)


def _build(recipe: Recipe) -> DetectionTask:
    if recipe.data.folder is None:
        raise BotvisionError("data.folder: expected a COCO folder, got none; give --data FOLDER")
    task = DetectionTask(
        recipe.model,
        recipe.data.folder,
        scale_jitter=recipe.data.scale_jitter,
        flip=recipe.data.flip,
        batch_size=recipe.training.batch_size,
        precision=recipe.training.precision,
        seed=recipe.training.seed,
    )
    task.description["recipe"] = recipe.model_dump(mode="json")
    return task


def new_run_path(runs: Path, recipe: Recipe) -> Path:
    """``runs/<task>/<name>``, with the first free number appended if it is taken."""
    first = runs / recipe.task / recipe.name
    path, number = first, 2
    while path.exists():
        path = first.with_name(f"{first.name}{number}")
        number += 1
    processes()  # sets up what the broadcast goes over
    return Path(broadcast_object_list([str(path)])[0])  # the main process's, before it is made
