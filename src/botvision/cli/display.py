"""Progress on the terminal, and in logs."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from botvision.training.speed import StepFigures

_SHOWN_EVALUATIONS = 8
_SECONDS_BETWEEN_LINES = 60.0


def open_console(*, as_json: bool) -> Console:
    """Return the terminal, or standard error beside JSON; quiet in all processes but the first."""
    return Console(stderr=as_json, quiet=os.environ.get("RANK", "0") != "0")


def print_plain(console: Console, text: str) -> None:
    """Print a line in which nothing is taken for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def figure_columns(*headings: str) -> list[Column]:
    """Return columns for figures: aligned to the right and never cut short."""
    return [Column(heading, justify="right", no_wrap=True) for heading in headings]


def figure(value: float | None) -> str:
    """Return three decimals; a metric of -1 has no truth to be measured by."""
    if value is None or value == -1:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        # A step of a large model takes many seconds on a CPU, an evaluation between them minutes.
        speed_estimate_period=600,
    )


@contextlib.contextmanager
def counting(console: Console, description: str) -> Iterator[Any]:
    """Show a bar for a function that reports (done, total)."""
    progress = _bar(console)
    task = progress.add_task(description, total=None)

    def report(done: int, total: int) -> None:
        progress.start()  # not before: an error should stand alone
        progress.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if progress.live.is_started:
            progress.stop()


@contextlib.contextmanager
def counting_steps(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar per step, for a function that reports (what, done, total)."""
    with contextlib.ExitStack() as bars:
        shown = ""
        report: Any = None

        def progress(what: str, done: int, total: int) -> None:
            nonlocal shown, report
            if report is None or what != shown:
                bars.close()
                shown, report = what, bars.enter_context(counting(console, what))
            report(done, total)

        yield progress


class TrainingDisplay:
    """Shows a run: live on a terminal, as lines elsewhere.

    On a terminal a table of the last evaluations stands above a bar, the losses and the speed. In
    a log there is one line per evaluation, and at most one a minute in between.

    Args:
        console: Terminal or log.
        done: Number of steps done before.
        total: Number of steps of the run.
        headlines: Names of the metrics to show, the most important first.
    """

    def __init__(self, console: Console, done: int, total: int, headlines: Sequence[str]) -> None:
        self._console, self._total, self._headlines = console, total, headlines
        self._average: dict[str, float] = {}
        self._figures: StepFigures | None = None
        self._evaluations: deque[tuple[str, ...]] = deque(maxlen=_SHOWN_EVALUATIONS)
        self._progress = _bar(console)
        self._task = self._progress.add_task("train", total=total, completed=done)
        self._next_line = 0.0

    @classmethod
    @contextlib.contextmanager
    def showing(
        cls, console: Console, done: int, total: int, headlines: Sequence[str]
    ) -> Iterator[Self]:
        """Show a run while the block lasts."""
        shown = cls(console, done, total, headlines)
        if not console.is_interactive:
            yield shown
            return
        with Live(console=console, get_renderable=shown._render, refresh_per_second=4):
            yield shown

    def note(self, text: str) -> None:
        """Show a line that is worth reading once."""
        print_plain(self._console, text)

    def step(self, figures: "StepFigures") -> None:
        """Show a step; losses are smoothed."""
        for name, loss in figures.losses.items():
            before = self._average.get(name, loss)
            self._average[name] = 0.95 * before + 0.05 * loss
        self._figures = figures
        self._progress.update(self._task, completed=figures.step)
        if not self._console.is_interactive and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
            self.note(f"step {figures.step}/{self._total}  {self._losses()}  {_speed(figures)}")

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[Callable[[int, int], None]]:
        """Show a second bar while an evaluation goes on."""
        task = self._progress.add_task("evaluate", total=None)

        def report(done: int, total: int) -> None:
            self._progress.update(task, completed=done, total=total)

        try:
            yield report
        finally:
            self._progress.remove_task(task)

    def evaluated(self, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """Show an evaluation's headline figures."""
        values = [figure(metrics.get(name)) for name in self._headlines]
        loss = f"{sum(self._average.values()):.3f}" if self._average else "-"
        self._evaluations.append((str(epoch), *values, loss, "best" if best else ""))
        if not self._console.is_interactive:
            figures = "  ".join(f"{n} {v}" for n, v in zip(self._headlines, values, strict=True))
            self.note(f"epoch {epoch}: {figures}  loss {loss}{'  best' if best else ''}")

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [self._table()] if self._evaluations else []
        parts.append(self._progress.get_renderable())
        if self._figures is not None:
            parts += [Text(self._losses()), Text(_speed(self._figures))]
        return Group(*parts)

    def _table(self) -> Table:
        # A metric's column is as wide as its name and a gap; the other three take 23.
        room, shown = self._console.width - 23, 0
        for name in self._headlines:
            room -= max(len(name), 5) + 3
            shown += room >= 0
        columns = figure_columns("epoch", *map(escape, self._headlines[:shown]), "loss")
        columns.append(Column(no_wrap=True, min_width=4))
        table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0))
        for epoch, *values, loss, best in self._evaluations:
            mark = f"[green]{best}[/green]" if best else ""
            table.add_row(epoch, *values[:shown], loss, mark)
        return table

    def _losses(self) -> str:
        parts = "  ".join(
            f"{name.removeprefix('loss_')} {loss:.3f}" for name, loss in self._average.items()
        )
        total = f"loss {sum(self._average.values()):.3f}"
        return total if len(self._average) == 1 else f"{total}: {parts}"


def metrics_table(task: str, metrics: dict[str, Any], title: str) -> Table:
    """Return metrics as a table.

    Args:
        task: Name of the task that they belong to.
        metrics: The metrics.
        title: Text above the table.
    """
    from botvision.tasks.task import find_task

    content = find_task(task).tabulate(metrics)
    table = Table("metric", *content.columns, title=title)
    for section in (content.rows, content.per_class):
        for name, values in section:
            table.add_row(escape(name), *map(figure, values))
        table.add_section()
    return table


def _speed(figures: "StepFigures") -> str:
    parts = [
        f"learning rate {figures.learning_rate:.3g}",
        f"{figures.images_per_second:.1f} images/s",
        f"waiting {figures.waiting:.0%}",
    ]
    if figures.memory is not None:
        parts.append(f"memory {figures.memory:.1f} GiB")
    return "  ".join(parts)
