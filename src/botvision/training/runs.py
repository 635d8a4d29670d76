"""Runs: found by their folders, summarized and compared."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from botvision.errors import BotvisionError, nearest
from botvision.tasks.task import DEFAULT_TASK, Task, find_task, task_names
from botvision.training.run_folder import RunFolder
from botvision.training.selection import defined, uses_up_patience
from botvision.training.state import flattened


@dataclass(frozen=True)
class Run:
    """A training run, as its folder tells of it.

    Attributes:
        folder: Path of the run folder.
        recipe: Content of ``recipe.yaml``.
        history: Records of ``metrics.jsonl``.
        written: Time when the newer of the two was written.
        fault: Why the folder cannot be read; None if it can.
    """

    folder: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    written: datetime | None = None
    fault: str | None = None

    @property
    def best(self) -> Path:
        """The weights file of the best evaluation."""
        return RunFolder(self.folder).best

    @property
    def last(self) -> Path:
        """The weights file of the last evaluation."""
        return RunFolder(self.folder).last

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the best evaluation; empty before the first."""
        found = self.best_evaluation(self.main_metric)
        return {} if found is None else dict(found["metrics"])

    @property
    def kind(self) -> str:
        """Kind of the task, such as "instance_segmentation"."""
        return self._task.kind(self._group("model")) if self._task else self._task_name

    @property
    def network(self) -> str:
        """The network in a few words."""
        return self._task.title(self._group("model")) if self._task else ""

    @property
    def headlines(self) -> tuple[str, ...]:
        """Metrics of the task that are shown first."""
        return self._task.headlines if self._task else ()

    @property
    def steps(self) -> int:
        """The last step that was logged."""
        return max((record["step"] for record in self.history), default=0)

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """The records of evaluations: ``step``, ``epoch`` and ``metrics``."""
        return [record for record in self.history if "metrics" in record]

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics of the evaluations, in the order of their first occurrence."""
        return list(dict.fromkeys(name for each in self.evaluations for name in each["metrics"]))

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None before the first evaluation tells the length of an epoch."""
        limit, epochs = self._count("max_steps"), self._count("epochs")
        if limit is not None and self.steps >= limit:
            return limit
        if not self.evaluations or epochs is None:
            return None
        first = self.evaluations[0]
        total: int = first["step"] // first["epoch"] * epochs
        return total if limit is None else min(total, limit)

    @property
    def main_metric(self) -> str | None:
        """The metric by which the best weights are chosen; None before the first evaluation."""
        measured = self.evaluations[-1]["metrics"] if self.evaluations else {}
        for name in (self._group("training").get("best_metric"), *self.headlines, *measured):
            if name in measured:
                return str(name)
        return None

    @property
    def state(self) -> str:
        """One of "finished", "stopped early", "not finished", "not begun" and "unreadable"."""
        if self.fault is not None:
            return "unreadable"
        if self.evaluations and self.evaluations[-1]["step"] == self.total_steps:
            return "finished"
        patience, best = self._count("patience"), self.best_evaluation(self.main_metric)
        if patience is not None and best is not None:
            value, warmup = _value(best, self.main_metric), self._count("warmup_steps") or 0
            later = self.evaluations[self.evaluations.index(best) + 1 :]
            waited = sum(uses_up_patience(value, record["step"], warmup) for record in later)
            if waited >= patience:
                return "stopped early"
        return "not finished" if self.history else "not begun"

    def best_evaluation(self, metric: str | None) -> dict[str, Any] | None:
        """Return the first evaluation with the best value of a metric; None without one."""
        measured = [record for record in self.evaluations if _value(record, metric) is not None]
        sign = self.sign(metric)
        return min(measured, key=lambda record: sign * record["metrics"][metric], default=None)

    def sign(self, metric: str | None) -> int:
        """Return 1 for a metric of which lower values are better, else -1."""
        return 1 if self._task and metric in self._task.lower_is_better else -1

    def best_value(self, metric: str) -> float | None:
        """Return the best value of a metric, or None."""
        record = self.best_evaluation(metric)
        return None if record is None else _value(record, metric)

    def last_value(self, metric: str) -> float | None:
        """Return the last value of a metric, or None."""
        return _value(self.evaluations[-1], metric) if self.evaluations else None

    def summary(self) -> dict[str, Any]:
        """Return the run's state, length and metrics, ready for JSON."""
        written = None if self.written is None else self.written.isoformat(timespec="seconds")
        summary: dict[str, Any] = {"run": str(self.folder), "state": self.state, "written": written}
        if self.fault is not None:
            return {**summary, "fault": self.fault}
        return {
            **summary,
            "task": self.kind,
            "network": self.network,
            "steps": self.steps,
            "total_steps": self.total_steps,
            "main_metric": self.main_metric,
            "best": {name: self.best_value(name) for name in self.metric_names},
            "last": {name: self.last_value(name) for name in self.metric_names},
        }

    @property
    def _task_name(self) -> str:
        return str(self.recipe.get("task", DEFAULT_TASK))

    @cached_property
    def _task(self) -> Task | None:
        """The task; None if it is not registered here."""
        return find_task(self._task_name) if self._task_name in task_names() else None

    def _group(self, name: str) -> dict[str, Any]:
        """A group of keys of the recipe; empty if it is none."""
        group = self.recipe.get(name)
        return group if isinstance(group, dict) else {}

    def _count(self, setting: str) -> int | None:
        """A whole number of the recipe, if it is one."""
        value = self._group("training").get(setting)
        return value if isinstance(value, int) else None


def find_runs(folder: Path) -> list[Run]:
    """Return the runs in a folder, or the folder itself if it is one, by path.

    Raises:
        BotvisionError: If there is no such folder.
    """
    if not folder.is_dir():
        raise BotvisionError(f"{folder}: no such folder of runs")
    runs = []
    for path, folders, files in os.walk(folder):
        folders.sort()
        if "metrics.jsonl" in files or {"recipe.yaml", "environment.json"} <= set(files):
            folders.clear()  # a run holds no runs
            runs.append(read_run(Path(path)))
    return runs


def open_run(path: Path) -> Run:
    """Read the run in a folder.

    Raises:
        BotvisionError: If the folder is no run or cannot be read.
    """
    run = read_run(path)
    if run.fault is not None:
        raise BotvisionError(f"{path}: expected a run folder that can be read, got: {run.fault}")
    return run


def read_run(path: Path) -> Run:
    """Read a run folder; a damaged one gives a run with a ``fault``."""
    folder = RunFolder(path)
    try:
        recipe = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
        history = folder.history()
        files = [file for file in (folder.recipe, folder.metrics) if file.exists()]
        written = datetime.fromtimestamp(max(file.stat().st_mtime for file in files))
    except FileNotFoundError:
        return Run(path, fault="recipe.yaml is missing")
    except yaml.YAMLError:
        return Run(path, fault="recipe.yaml is not YAML")
    except (OSError, ValueError, RecursionError) as error:
        return Run(path, fault=" ".join(str(error).split()))
    if not isinstance(recipe, dict):
        return Run(path, fault=f"recipe.yaml: expected keys, got {type(recipe).__name__}")
    return Run(path, recipe, [record for record in history if _is_record(record)], written)


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return the paths of runs relative to the nearest folder that holds them all."""
    paths = [run.folder.absolute() for run in runs]
    parent = os.path.commonpath([path.parent for path in paths])
    return [str(path.relative_to(parent)) for path in paths]


def headline_metrics(runs: Sequence[Run]) -> list[str]:
    """Return the metrics of runs that are shown first; one at least, if there are any."""
    found = {name for run in runs for name in run.metric_names}
    first = dict.fromkeys(name for run in runs for name in run.headlines)
    return [name for name in first if name in found] or sorted(found)[:1]


def sorted_runs(runs: Sequence[Run], metric: str) -> list[Run]:
    """Return runs sorted by their best value of a metric, the best first; those without it last.

    Raises:
        BotvisionError: If no run has the metric.
    """
    known = sorted({name for run in runs for name in run.metric_names})
    if metric not in known:
        listed = ", ".join(known) or "no metrics at all"
        raise BotvisionError(
            f"metric {metric!r}: no run has it"
            f"{nearest(metric, known) or ';'} the runs have {listed}"
        )

    def rank(run: Run) -> float:
        value = run.best_value(metric)
        return math.inf if value is None else run.sign(metric) * value

    return sorted(runs, key=rank)


def differing_values(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the recipes' values that differ between runs, by "key.key"; None if missing.

    ``about``, which only people read, is left out.
    """
    flat = [flattened({**run.recipe, "about": None}) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    rows = {key: [values.get(key) for values in flat] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def compared_metrics(runs: Sequence[Run]) -> dict[str, list[float | None]]:
    """Return the metrics of each run's best evaluation, by name; None where a run has none."""
    chosen = []
    for run in runs:
        best = run.best_evaluation(run.main_metric)
        chosen.append({} if best is None else {**best["metrics"], "step": best["step"]})
    names = dict.fromkeys(["step", *(name for metrics in chosen for name in metrics)])
    return {name: [metrics.get(name) for metrics in chosen] for name in names}


def _value(record: dict[str, Any], metric: str | None) -> float | None:
    """A metric of an evaluation; None if it is undefined."""
    return defined(record["metrics"].get(metric))


def _is_record(record: Any) -> bool:
    """Whether a line is whole: a crash of the machine can leave anything that is JSON."""
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return False
    if "metrics" in record:
        epoch = record.get("epoch")
        return _are_numbers(record["metrics"]) and isinstance(epoch, int) and epoch > 0
    return _are_numbers(record.get("losses")) and "learning_rate" in record


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(v, int | float) for v in values.values())
