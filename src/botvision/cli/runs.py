"""``botvision runs``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Column, Table

from botvision.cli.display import figure, figure_columns, open_console, print_plain
from botvision.cli.options import AsJson
from botvision.errors import BotvisionError
from botvision.files import quoted

if TYPE_CHECKING:
    from botvision.training.runs import Run


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="A folder of runs, or two and more runs to compare; runs if none."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Metric to sort by, the best first; by path if none.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG to write: the runs' curves over each other.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List runs with their best and last metrics, or compare some.

    Of two and more runs, what differs in their recipes stands beside the metrics of their best
    evaluations.

    Example: botvision runs --sort mask_ap

    Example: botvision runs runs/detection/first runs/detection/second --plot curves.png
    """
    from botvision.training.runs import (
        compared_metrics,
        differing_values,
        find_runs,
        open_run,
        sorted_runs,
    )

    chosen = folders or [Path("runs")]
    comparing = len(chosen) > 1
    found = [open_run(path) for path in chosen] if comparing else find_runs(chosen[0])
    if sort is not None:
        found = sorted_runs(found, sort)
    if plot is not None:
        _plot(found, plot)
    console = open_console(as_json=as_json)
    summaries = [run.summary() for run in found]
    if comparing:
        recipe, metrics = differing_values(found), compared_metrics(found)
        if as_json:
            print(json.dumps({"runs": summaries, "recipe": recipe, "metrics": metrics}))
        else:
            console.print(_comparison(found, recipe, metrics))
    elif as_json:
        print(json.dumps(summaries))
    elif found:
        console.print(_list(found, chosen[0], sort))
    else:
        print_plain(console, f"no runs in {quoted(chosen[0])}; botvision train makes them")


def _plot(found: "Sequence[Run]", path: Path) -> None:
    from botvision.images.figures import save_figure
    from botvision.training.curves import overlay_figure
    from botvision.training.runs import headline_metrics, run_names

    drawn = [run for run in found if run.history]
    if not drawn:
        raise BotvisionError(f"{path}: nothing to draw; no run has begun")
    if not path.parent.is_dir():
        raise BotvisionError(f"{path}: no such folder as {path.parent}")
    histories = (run.history for run in drawn)
    named = dict(zip(run_names(drawn), histories, strict=True))
    save_figure(overlay_figure(named, headline_metrics(drawn)), path)


def _list(found: "Sequence[Run]", folder: Path, metric: str | None) -> Table:
    table = Table(
        Column("run", overflow="fold"),
        *figure_columns("steps"),
        Column("state", no_wrap=True),
        *figure_columns("metric", "best", "last"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for run in found:
        name = escape(str(run.folder.relative_to(folder) if run.folder != folder else folder))
        if run.fault is not None:
            table.add_row(f"{name}\n  [red]{escape(run.fault)}[/red]", "", run.state)
            continue
        steps = f"{run.steps}" + (f"/{run.total_steps}" if run.total_steps else "")
        shown = metric or run.main_metric
        figures = ["", "", ""]
        if shown is not None:
            figures = [shown, figure(run.best_value(shown)), figure(run.last_value(shown))]
        about = f"[dim]{run.kind}: {escape(run.network)}[/dim]"
        state = run.state + (f"\n[dim]{run.written:%Y-%m-%d}[/dim]" if run.written else "")
        table.add_row(f"{name}\n  {about}", steps, state, *map(escape, figures))
    return table


def _comparison(
    found: "Sequence[Run]", recipe: dict[str, list[Any]], metrics: dict[str, list[float | None]]
) -> Table:
    from botvision.training.runs import run_names

    table = Table(Column(no_wrap=True), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in run_names(found):
        table.add_column(escape(name), overflow="fold", justify="right")
    table.add_row("task", *(run.kind for run in found))
    table.add_row("network", *(escape(run.network) for run in found))
    table.add_row("state", *(run.state for run in found))
    table.add_row("steps", *(str(run.steps) for run in found), end_section=True)
    for key, values in recipe.items():
        cells = ("-" if value is None else escape(str(value)) for value in values)
        table.add_row(escape(key), *cells)
    table.add_section()
    for name, figures in metrics.items():
        label = "step of the best" if name == "step" else escape(name)
        table.add_row(label, *map(figure, figures))
    return table
