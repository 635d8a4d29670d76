"""Progress on the terminal."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

_HEADLINES = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75")


def open_console(*, as_json: bool) -> Console:
    """The terminal, or standard error where standard output is JSON; quiet in worker processes."""
    return Console(stderr=as_json, quiet=os.environ.get("RANK", "0") != "0")


def bar(console: Console) -> Progress:
    """A progress bar with a note, a count, the time passed and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        # The last and only one to be cut short: count and time left show on any terminal.
        TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True)),
        console=console,
        expand=True,
    )


@contextlib.contextmanager
def counting(console: Console, description: str) -> Iterator[Any]:
    """A bar for a function that reports (done, total)."""
    progress = bar(console)
    task = progress.add_task(description, total=None, note="")

    def report(done: int, total: int) -> None:
        progress.start()  # not before: an error should stand alone
        progress.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if progress.live.is_started:
            progress.stop()


class TrainingDisplay:
    """A bar with losses and images a second, and a line an evaluation.

    Args:
        console: Where to.
        progress: The bar.
        done: Steps done before.
        total: Steps of the run.
    """

    def __init__(self, console: Console, progress: Progress, done: int, total: int) -> None:
        self._console = console
        self._progress = progress
        self._task: TaskID = progress.add_task("train", total=total, completed=done, note="")
        self._average: dict[str, float] = {}

    @classmethod
    @contextlib.contextmanager
    def showing(cls, console: Console, done: int, total: int) -> Iterator["TrainingDisplay"]:
        """The display of a run while the block lasts."""
        with bar(console) as progress:
            yield cls(console, progress, done, total)

    def step(self, done: int, losses: dict[str, float], images_per_second: float) -> None:
        """Show a step; losses are smoothed."""
        for name, loss in losses.items():
            before = self._average.get(name, loss)
            self._average[name] = 0.95 * before + 0.05 * loss
        shown = " ".join(
            f"{name.removeprefix('loss_')} {loss:.3f}" for name, loss in self._average.items()
        )
        total = sum(self._average.values())
        note = f"{images_per_second:.1f} images/s loss {total:.2f}: {shown}"
        self._progress.update(self._task, completed=done, note=note)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[Any]:
        """A second bar while an evaluation goes on."""
        task = self._progress.add_task("evaluate", total=None, note="")

        def report(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total)

        yield report
        self._progress.remove_task(task)

    def evaluated(self, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """A line with the evaluation's headline figures."""
        figures = "  ".join(f"{name} {metrics[name]:.3f}" for name in _HEADLINES if name in metrics)
        self._console.print(f"epoch {epoch}: {figures}{'  [green]best[/green]' if best else ''}")


def metrics_table(metrics: dict[str, Any], title: str) -> Table:
    """COCO metrics as a table: a row a metric, a column for boxes and one for masks."""
    kinds = [kind for kind in ("box", "mask") if f"{kind}_ap" in metrics]
    table = Table("metric", *kinds, title=title)
    names = [key.removeprefix("box_") for key in metrics if key.startswith("box_")]
    for name in names:
        if name != "ap_per_class":
            table.add_row(name, *(_figure(metrics[f"{kind}_{name}"]) for kind in kinds))
    table.add_section()
    for category in metrics.get("box_ap_per_class", {}):
        values = (_figure(metrics[f"{kind}_ap_per_class"][category]) for kind in kinds)
        table.add_row(f"ap of {category}", *values)
    return table


def _figure(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"
