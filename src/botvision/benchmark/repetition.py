"""Repeat recipes with several seeds; means and standard deviations of their metrics."""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from botvision.benchmark.machine import describe_machine
from botvision.errors import BotvisionError
from botvision.files import write_json
from botvision.images.figures import plain_text, save_figure
from botvision.processes import processes
from botvision.recipes.running import resume_run, train_recipe
from botvision.recipes.schema import Recipe
from botvision.training.log import ShowRun
from botvision.training.runs import Run, differing_values, read_run
from botvision.training.state import FREE

_DONE = ("finished", "stopped early")


@dataclass(frozen=True)
class Repeated:
    """Summary of the runs of a recipe.

    Attributes:
        recipe: Name of the recipe.
        metric: Name of the task's main metric.
        seeds: Seeds of the finished runs.
        values: Metric at the end of each run, 0 to 1. The best of a run would be chosen on the
            data on which it is measured.
        mean: Mean of the values.
        deviation: Standard deviation of the values (n - 1); None for a single one.
        seconds: Mean wall-clock time of a run.
        processor_seconds: Mean processor time of a run's training process, over its threads.
    """

    recipe: str
    metric: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    deviation: float | None
    seconds: float
    processor_seconds: float


def repeat_recipes(
    recipes: Sequence[Recipe],
    seeds: int,
    folder: Path,
    *,
    display: ShowRun | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Repeated]:
    """Train each recipe with the seeds 0, 1 and so on.

    The runs are ``<folder>/<task>/<recipe>_seed<seed>``. Finished runs are kept, interrupted ones
    are resumed. ``summary.json`` and ``summary.png`` are written after each run.

    Args:
        recipes: Recipes with their ``data.folder`` set.
        seeds: Number of seeds.
        folder: Folder of the runs.
        display: Shows a run; None: silent.
        note: Called with one line when a run begins.

    Raises:
        BotvisionError: If a run cannot be started or resumed, or its folder holds a run of another
            recipe.
        Interrupted: If Ctrl-C or SIGTERM asked to stop; the same call resumes.
    """
    machine = describe_machine(processes().device.type)
    runs = {}
    for seed in range(seeds):
        for recipe in recipes:
            training = recipe.training.model_copy(update={"seed": seed})
            path = _path(folder, recipe, seed)
            runs[path] = recipe.model_copy(update={"name": path.name, "training": training})
    for path, recipe in runs.items():
        if path.exists():
            _check_same(path, recipe)
    for number, (path, recipe) in enumerate(runs.items(), start=1):
        if path.exists() and read_run(path).state in _DONE:
            continue
        if note is not None:
            note(f"run {number} of {len(runs)}: {path}")
        with _timed(path):
            if path.exists():
                resume_run(path, display=display)
            else:
                train_recipe(recipe, path, display=display)
        if processes().is_main_process:
            finished = _finished(recipes, seeds, folder)
            rows = _summary(finished)
            content = {"machine": asdict(machine), "recipes": [asdict(row) for row in rows]}
            write_json(folder / "summary.json", content)
            save_figure(_figure(rows, finished), folder / "summary.png")
    return _summary(_finished(recipes, seeds, folder))


def _path(folder: Path, recipe: Recipe, seed: int) -> Path:
    return folder / recipe.kind / f"{recipe.name}_seed{seed}"


def _check_same(path: Path, recipe: Recipe) -> None:
    wanted = Run(path, recipe=recipe.model_dump(mode="json"))
    different = differing_values([read_run(path), wanted]).keys() - FREE
    if different:
        raise BotvisionError(
            f"{path}: expected a run of the same recipe, got one with other {min(different)}; "
            "choose another folder"
        )


@contextmanager
def _timed(path: Path) -> Iterator[None]:
    """Add the time of the block to the time of the run, which may have been interrupted."""
    start, computed = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        if path.exists() and processes().is_main_process:
            spent = _time(path)
            spent["seconds"] += time.monotonic() - start
            spent["processor_seconds"] += time.process_time() - computed
            write_json(path / "time.json", spent)


def _time(path: Path) -> dict[str, float]:
    file = path / "time.json"
    zero = {"seconds": 0.0, "processor_seconds": 0.0}
    return {**zero, **json.loads(file.read_text())} if file.is_file() else zero


def _finished(recipes: Sequence[Recipe], seeds: int, folder: Path) -> dict[str, dict[int, Run]]:
    """Return the finished runs by recipe and seed, without recipes that have none."""
    finished: dict[str, dict[int, Run]] = {}
    for recipe, seed in product(recipes, range(seeds)):
        run = read_run(_path(folder, recipe, seed))
        if run.state in _DONE:
            finished.setdefault(recipe.name, {})[seed] = run
    return finished


def _summary(finished: dict[str, dict[int, Run]]) -> list[Repeated]:
    rows = []
    for name, runs in finished.items():
        metric = next(iter(runs.values())).main_metric
        assert metric is not None
        values = [run.evaluations[-1]["metrics"][metric] for run in runs.values()]
        times = [_time(run.folder) for run in runs.values()]
        row = Repeated(
            recipe=name,
            metric=metric,
            seeds=tuple(runs),
            values=tuple(values),
            mean=statistics.mean(values),
            deviation=statistics.stdev(values) if len(values) > 1 else None,
            seconds=statistics.mean(each["seconds"] for each in times),
            processor_seconds=statistics.mean(each["processor_seconds"] for each in times),
        )
        rows.append(row)
    return rows


def _figure(rows: Sequence[Repeated], finished: dict[str, dict[int, Run]]) -> Figure:
    """Plot mean and standard deviation over the epochs, and the last values."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    curves, ends = figure.subplots(1, 2, width_ratios=(3, 2))
    names = [plain_text(row.recipe, longest=40) for row in rows]
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        evaluations = [run.evaluations for run in finished[row.recipe].values()]
        # Early stopping ends runs at different epochs.
        columns = list(zip(*evaluations, strict=False))
        epochs = [column[0]["epoch"] for column in columns]
        values = np.array([[each["metrics"][row.metric] for each in column] for column in columns])
        means = values.mean(1)
        spread = values.std(1, ddof=1) if values.shape[1] > 1 else np.zeros_like(means)
        (line,) = curves.plot(epochs, means, marker="o", markersize=4, label=name)
        color = line.get_color()
        curves.fill_between(epochs, means - spread, means + spread, color=color, alpha=0.2)
        ends.plot([index] * len(row.values), row.values, "o", color=color, alpha=0.5)
        ends.errorbar(index, row.mean, row.deviation, fmt="_", color="black", capsize=6)
    ends.set_xticks(range(len(rows)), names, rotation=15, fontsize=8)
    ends.margins(x=0.2)
    metrics = " and ".join(dict.fromkeys(row.metric for row in rows))
    curves.set(title=f"{metrics}: mean and standard deviation over the seeds", xlabel="epoch")
    ends.set(title="at the end of each run")
    for axes in (curves, ends):
        axes.grid(alpha=0.3)
    curves.legend(fontsize="small")
    return figure
