"""Figures of learning curves: of one run, and of several runs overlaid."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from botvision.images.figures import plain_text

History = Sequence[Mapping[str, Any]]
"""Lines of ``metrics.jsonl``."""


def curves_figure(history: History, headlines: Sequence[str]) -> Figure:
    """Return a figure of losses, learning rate and metrics over the steps of a run.

    Args:
        history: Lines of ``metrics.jsonl``.
        headlines: Names of the metrics to draw.
    """
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    losses, rate, metrics = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    steps = [record for record in history if "losses" in record]
    for name in dict.fromkeys(name for record in steps for name in record["losses"]):
        _draw_loss(losses, *_series(steps, "losses", name), label=name.removeprefix("loss_"))
    _finish_losses(losses, "Training losses, smoothed and raw")
    if steps:
        rates = [record["learning_rate"] for record in steps]
        rate.plot([record["step"] for record in steps], rates, color="tab:blue")
        rate.set_ylim(0, 1.05 * max(rates) or 1)
        rate.ticklabel_format(axis="y", scilimits=(-2, 3))
    rate.set(title="Learning rate", xlabel="step")
    evaluations = [record for record in history if "metrics" in record]
    for name in headlines:
        _draw_metric(metrics, *_series(evaluations, "metrics", name), label=name)
    _finish_metrics(metrics, "Validation")
    for axes in (losses, rate, metrics):
        _finish(axes)
    return figure


def overlay_figure(runs: Mapping[str, History], metrics: Sequence[str]) -> Figure:
    """Return a figure of the metrics and the sum of the losses of several runs in common panels.

    Args:
        runs: Lines of ``metrics.jsonl`` of each run, by the run's name.
        metrics: Names of the metrics, one panel each; a run may lack some.
    """
    count = 1 + len(metrics)
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(5.2 * columns + 2, 0.6 + 4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in panels[1:count]:
        axes.sharex(panels[0])
    palette = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (run, history) in enumerate(runs.items()):
        color = palette[number % len(palette)]
        dashes = ("-", "--", ":", "-.")[number // len(palette) % 4]
        style = {"color": color, "linestyle": dashes, "label": plain_text(run, longest=60)}
        steps = [record for record in history if "losses" in record]
        sums = [sum(record["losses"].values()) for record in steps]
        _draw_loss(panels[0], [record["step"] for record in steps], sums, **style)
        evaluations = [record for record in history if "metrics" in record]
        for axes, name in zip(panels[1:], metrics, strict=False):
            _draw_metric(axes, *_series(evaluations, "metrics", name), **style)
    _finish_losses(panels[0], "Sum of the losses")
    for axes, name in zip(panels[1:], metrics, strict=False):
        _finish_metrics(axes, name)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        _finish(axes, legend=False)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center")
    return figure


def _series(records: History, key: str, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the records that hold the name."""
    chosen = [record for record in records if name in record[key]]
    return [record["step"] for record in chosen], [record[key][name] for record in chosen]


def _draw_loss(axes: Any, steps: list[int], values: list[float], **style: Any) -> None:
    (line,) = axes.plot(steps, smoothed(values), **style)
    axes.plot(steps, values, color=line.get_color(), alpha=0.2, linewidth=0.8)


def _draw_metric(axes: Any, steps: list[int], values: list[float], **style: Any) -> None:
    """Draw a metric without values of -1, which mean that there is no ground truth."""
    points = [(step, value) for step, value in zip(steps, values, strict=True) if value != -1]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, **style)


def _finish_losses(axes: Any, title: str) -> None:
    """Use a logarithmic axis, unless a loss is zero or negative somewhere."""
    values = [value for line in axes.get_lines() for value in line.get_ydata()]
    if values and min(values) > 0:
        axes.set_yscale("log")
        # 0.2 rather than powers of 10: the range is often less than a decade.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(title=title, xlabel="step")


def _finish_metrics(axes: Any, title: str) -> None:
    """Let an axis of fractions end a little above the highest, so that low ones are readable."""
    values = [value for line in axes.get_lines() for value in line.get_ydata()]
    if min(values, default=0.0) >= 0 and max(values, default=1.0) <= 1:
        top = min(1.02, max(1.15 * max(values, default=1.0), 1e-3))
        axes.set_ylim(-0.02 * top, top)
    axes.set(title=title, xlabel="step")


def _finish(axes: Any, *, legend: bool = True) -> None:
    axes.grid(alpha=0.3)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    elif not axes.get_lines():
        axes.text(0.5, 0.5, "nothing yet", transform=axes.transAxes, ha="center", color="gray")


def smoothed(values: Sequence[float]) -> list[float]:
    """Return a moving average over about a twentieth of the values on each side, 50 at most.

    It is the mean of an exponential average from the left and one from the right, so curves are
    not shifted. A short series stays as it is.
    """
    keep = 1 - 1 / max(1.0, min(len(values) / 20, 50.0))
    before = _averages(values, keep)
    after = _averages(values[::-1], keep)[::-1]
    return [(left + right) / 2 for left, right in zip(before, after, strict=True)]


def _averages(values: Sequence[float], keep: float) -> list[float]:
    averages: list[float] = []
    total = weight = 0.0
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        averages.append(total / weight)
    return averages
