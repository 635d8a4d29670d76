"""Repeat recipes with several seeds; means and standard deviations of their metrics."""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from botvision.benchmark.machine import Machine, describe_machine
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
    display: ShowRun,
    note: Callable[[str], None] | None = None,
) -> list[Repeated]:
    """Train each recipe with the seeds 0, 1 and so on.

    The runs are ``<folder>/<task>/<recipe>_seed<seed>``. Finished runs are kept, interrupted ones
    are resumed. ``summary.json`` and ``summary.png`` are written after each run.

    Args:
        recipes: Recipes with their ``data.folder`` set.
        seeds: Number of seeds.
        folder: Folder of the runs.
        display: Shows a run.
        note: Called with one line when a run begins.

    Raises:
        BotvisionError: If a run cannot be started or resumed, or its folder holds a run of another
            recipe.
        Interrupted: If Ctrl-C or SIGTERM asked to stop; the same call resumes.
    """
    machine = describe_machine(processes().device.type)
    runs = [(recipe, seed) for seed in range(seeds) for recipe in recipes]
    for recipe, seed in runs:
        _check_same(recipe, seed, folder)
    for number, (recipe, seed) in enumerate(runs, start=1):
        path = _path(folder, recipe, seed)
        if path.exists() and read_run(path).state in _DONE:
            continue
        if note is not None:
            note(f"run {number} of {len(runs)}: {path}")
        with _timed(path):
            if path.exists():
                resume_run(path, display=display)
            else:
                train_recipe(_seeded(recipe, seed), path, display=display)
        if processes().is_main_process:
            _write_summary(machine, recipes, seeds, folder)
    return _summary(recipes, seeds, folder)


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    training = recipe.training.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"name": f"{recipe.name}_seed{seed}", "training": training})


def _path(folder: Path, recipe: Recipe, seed: int) -> Path:
    return folder / recipe.kind / f"{recipe.name}_seed{seed}"


def _check_same(recipe: Recipe, seed: int, folder: Path) -> None:
    path = _path(folder, recipe, seed)
    if not path.exists():
        return
    wanted = Run(path, recipe=_seeded(recipe, seed).model_dump(mode="json"))
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
    if not file.is_file():
        return {"seconds": 0.0, "processor_seconds": 0.0}
    seconds: dict[str, float] = json.loads(file.read_text())
    return seconds


def _finished(recipe: Recipe, seeds: int, folder: Path) -> dict[int, Run]:
    found = {seed: read_run(_path(folder, recipe, seed)) for seed in range(seeds)}
    return {seed: run for seed, run in found.items() if run.state in _DONE}


def _summary(recipes: Sequence[Recipe], seeds: int, folder: Path) -> list[Repeated]:
    rows = []
    for recipe in recipes:
        runs = _finished(recipe, seeds, folder)
        if not runs:
            continue
        metric = next(iter(runs.values())).main_metric
        assert metric is not None
        values = [run.evaluations[-1]["metrics"][metric] for run in runs.values()]
        times = [_time(run.folder) for run in runs.values()]
        rows.append(
            Repeated(
                recipe=recipe.name,
                metric=metric,
                seeds=tuple(runs),
                values=tuple(values),
                mean=statistics.mean(values),
                deviation=statistics.stdev(values) if len(values) > 1 else None,
                seconds=statistics.mean(each["seconds"] for each in times),
                processor_seconds=statistics.mean(each["processor_seconds"] for each in times),
            )
        )
    return rows


def _write_summary(machine: Machine, recipes: Sequence[Recipe], seeds: int, folder: Path) -> None:
    rows = _summary(recipes, seeds, folder)
    content = {"machine": asdict(machine), "recipes": [asdict(row) for row in rows]}
    write_json(folder / "summary.json", content)
    runs = {recipe.name: list(_finished(recipe, seeds, folder).values()) for recipe in recipes}
    save_figure(_figure(rows, runs), folder / "summary.png")


def _figure(rows: Sequence[Repeated], runs: dict[str, list[Run]]) -> Figure:
    """Plot mean and standard deviation over the epochs, and the last values."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    curves, ends = figure.subplots(1, 2, width_ratios=(3, 2))
    for index, row in enumerate(rows):
        series: list[list[Any]] = [
            [(each["epoch"], each["metrics"][row.metric]) for each in run.evaluations]
            for run in runs[row.recipe]
        ]
        shared = min(map(len, series))  # early stopping ends runs at different epochs
        epochs = [epoch for epoch, _ in series[0][:shared]]
        columns = [[value for _, value in column] for column in zip(*series, strict=False)]
        means = [statistics.mean(column) for column in columns]
        spread = [statistics.stdev(column) if len(column) > 1 else 0.0 for column in columns]
        name = plain_text(row.recipe, longest=40)
        (line,) = curves.plot(epochs, means, marker="o", markersize=4, label=name)
        low = [mean - each for mean, each in zip(means, spread, strict=True)]
        high = [mean + each for mean, each in zip(means, spread, strict=True)]
        curves.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2)
        ends.plot([index] * len(row.values), row.values, "o", color=line.get_color(), alpha=0.5)
        ends.errorbar(index, row.mean, row.deviation, fmt="_", color="black", capsize=6)
    names = [plain_text(row.recipe, longest=40) for row in rows]
    ends.set_xticks(range(len(rows)), names, rotation=15, fontsize=8)
    ends.margins(x=0.2)
    metrics = " and ".join(dict.fromkeys(row.metric for row in rows))
    curves.set(title=f"{metrics}: mean and standard deviation over the seeds", xlabel="epoch")
    ends.set(title="at the end of each run")
    for axes in (curves, ends):
        axes.grid(alpha=0.3)
    curves.legend(fontsize="small")
    return figure
