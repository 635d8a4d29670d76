"""Reports as files: figures as JSON and, for attention and backbones, as plots."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from botvision.benchmark.attention_benchmark import AttentionGroup, AttentionReport
from botvision.benchmark.attention_layers import PEERS, layer_title
from botvision.benchmark.backbone_benchmark import BackboneReport, model_title
from botvision.benchmark.measuring import FORWARD_BACKWARD, PASSES, WORK, Group, Measured
from botvision.files import write_json
from botvision.images.figures import save_figure
from botvision.models import list_models

_PASS_COLORS = ("#9bbfe0", "#1f5fa8")
_OUR_COLORS = ("#0b2f6b", "#2f86c9", "#35b0ab", "#8db8e8", "#7d6fd1", "#5d7f99")
_PEER_COLORS = ("#d9822b", "#b5432f", "#8c8c8c")
_MIB = 2**20
_LEAST_MIB = 0.1  # a logarithmic axis has no 0


def write_report(report: Any, folder: Path) -> list[str]:
    """Write ``benchmark.json`` and perhaps ``benchmark.png``, all or nothing, over earlier ones.

    Args:
        report: Report of a benchmark, a dataclass.
        folder: Folder to write to; it must exist.

    Returns:
        Names of the files.
    """
    write_json(folder / "benchmark.json", asdict(report))
    with rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        if isinstance(report, AttentionReport):
            figure = _attention_figure(report)
        elif isinstance(report, BackboneReport):
            figure = _backbone_figure(report)
        else:
            return ["benchmark.json"]
    save_figure(figure, folder / "benchmark.png", dpi=120)
    return ["benchmark.json", "benchmark.png"]


def _attention_figure(report: AttentionReport) -> Figure:
    """Time as a multiple of the first layer's, and memory over the map size.

    There are two rows per dtype and one column per pass. Layers that never ran are left out.
    """
    settings = report.settings
    ran = {r.name for g in report.groups for r in g.results if r.seconds is not None}
    layers = [layer for layer in settings.layers if layer in ran]
    # Cold colors for our layers, warm ones and gray for the peers.
    ours = (layer for layer in settings.layers if layer not in PEERS)
    colors = dict(zip(ours, cycle(_OUR_COLORS))) | dict(zip(PEERS, _PEER_COLORS, strict=True))
    rows = 2 * len(settings.dtypes)
    width = min(30.0, max(15.0, 0.45 * len(layers) * len(settings.sizes)))
    figure = Figure(figsize=(width, 4.4 * rows + 1), layout="constrained")
    panels = figure.subplots(rows, len(PASSES), squeeze=False)
    for row, dtype in enumerate(settings.dtypes):
        for column, pass_name in enumerate(PASSES):
            groups = sorted(
                (g for g in report.groups if (g.dtype, g.pass_name) == (dtype, pass_name)),
                key=lambda group: group.height * group.width,
            )
            times, memory = panels[2 * row][column], panels[2 * row + 1][column]
            times.set_title(f"{pass_name}, {dtype}", fontweight="bold")
            times.set_ylabel(f"time relative to {layer_title(settings.layers[0])}")
            _draw_ratios(times, groups, layers, colors)
            _draw_memory(memory, groups, layers, colors)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle(
        f"Attention layers: {settings.heads} heads of {settings.head_dim}, batch {settings.batch}\n"
        f"{report.machine.title()}",
        fontsize="medium",
    )
    return figure


def _backbone_figure(report: BackboneReport) -> Figure:
    """Compute time over multiply-adds, ours as circles; time and memory of each model."""
    settings = report.settings
    height = max(4.5, 0.75 * len(settings.models) + 2)
    figure = Figure(figsize=(18, height), layout="constrained")
    scatter, times, memory = figure.subplots(1, 3)
    _draw_compute_time(scatter, report)
    names = [model_title(model) for model in settings.models]
    _draw_bars(times, names, report.groups, "seconds", 1e3)
    times.set(title="Time and its ratio to the first model", xlabel="ms")
    _draw_bars(memory, names, report.groups, "memory_bytes", 1 / _MIB)
    memory.set(title="Added memory of a pass", xlabel="MiB")
    handles, labels = times.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2)
    figure.suptitle(
        f"Models: batch {settings.batch}, {settings.dtype}\n{report.machine.title()}",
        fontsize="medium",
    )
    return figure


def _draw_ratios(
    axes: Any, groups: Sequence[AttentionGroup], layers: Sequence[str], colors: dict[str, Any]
) -> None:
    width = 0.84 / max(1, len(layers))
    crowded = len(layers) * len(groups) > 24
    for index, layer in enumerate(layers):
        positions = [at + (index - (len(layers) - 1) / 2) * width for at in range(len(groups))]
        results = [_result(group, layer) for group in groups]
        ratios = [result.ratio or 0.0 for result in results]
        axes.bar(positions, ratios, 0.94 * width, color=colors[layer], label=layer_title(layer))
        for position, result in zip(positions, results, strict=True):
            missing = result.ratio is None
            axes.annotate(
                _reason(result) if missing else f"{result.ratio:.2f}",
                (position, result.ratio or 0.0),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=90 if missing or crowded else 0,
                color="gray" if missing else "black",
                fontsize=8,
            )
    axes.axhline(1, color="lightgray", linewidth=0.8, zorder=0)
    titles = []
    for group in groups:
        seconds = group.results[0].seconds
        time = "" if seconds is None else f"\n1 is\n{_short(1e3 * seconds)} ms"
        titles.append(f"{group.height}x{group.width}{time}")
    axes.set_xticks(range(len(groups)), titles)
    axes.margins(y=0.12)


def _draw_memory(
    axes: Any, groups: Sequence[AttentionGroup], layers: Sequence[str], colors: dict[str, Any]
) -> None:
    for layer in layers:
        points = [
            (group.height * group.width, max(_LEAST_MIB, result.memory_bytes / _MIB))
            for group in groups
            if (result := _result(group, layer)).memory_bytes is not None
        ]
        if points:
            positions, values = zip(*points, strict=True)
            ours = layer not in PEERS
            axes.plot(
                positions,
                values,
                color=colors[layer],
                marker="o" if ours else "s",
                linestyle="-" if ours else "--",
            )
    axes.set(xscale="log", yscale="log", xlabel="map", ylabel="added memory of the pass (MiB)")
    sizes = defaultdict(list)
    for group in groups:
        sizes[group.height * group.width].append(f"{group.height}x{group.width}")
    # Maps of nearly the same number of positions would overlap.
    axes.set_xticks(list(sizes), ["\n".join(names) for names in sizes.values()], rotation=45)
    axes.xaxis.set_minor_locator(NullLocator())
    _plain_numbers(axes.yaxis)
    axes.grid(alpha=0.3)


def _draw_compute_time(axes: Any, report: BackboneReport) -> None:
    group = next(group for group in report.groups if group.pass_name == FORWARD_BACKWARD)
    points = {
        model: (model.multiply_adds / 1e9, 1e3 * result.seconds)
        for model, result in zip(report.settings.models, group.results, strict=True)
        if result.seconds is not None
    }
    reached = [multiply_adds for multiply_adds, _ in points.values()]
    for model, point in points.items():
        marker = "o" if model.name in list_models() else "s"
        axes.scatter(*point, marker=marker, s=60, zorder=3, label=model_title(model))
    peak = group.peak_operations_per_second
    if reached and peak is not None:
        ends = [min(reached) / 1.5, max(reached) * 1.5]
        work = 2e9 * WORK[FORWARD_BACKWARD] * report.settings.batch
        fastest = [1e3 * work * end / peak for end in ends]
        axes.plot(ends, fastest, "--", color="gray", label="at the matrix product's rate")
        axes.legend(loc="upper left", fontsize="small")
    axes.set(xlabel="multiply-adds per image (G)", ylabel="ms", xscale="log", yscale="log")
    axes.set_title("Compute time: forward and backward")
    axes.margins(x=0.2, y=0.2)
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    axes.grid(alpha=0.3)


def _draw_bars(
    axes: Any, names: Sequence[str], groups: Sequence[Group], figure: str, factor: float
) -> None:
    colors = dict(zip(PASSES, _PASS_COLORS, strict=True))
    for index, group in enumerate(groups):
        positions = [at + 0.38 * (index - 0.5) for at in range(len(names))]
        values = [factor * (getattr(result, figure) or 0) for result in group.results]
        axes.barh(positions, values, 0.36, color=colors[group.pass_name], label=group.pass_name)
        for position, value, result in zip(positions, values, group.results, strict=True):
            note = _reason(result) or _short(value)
            if figure == "seconds" and result.ratio is not None:
                note += f" ({result.ratio:.2f}x)"
            axes.annotate(
                note, (value, position), xytext=(4, 0), textcoords="offset points", va="center"
            )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.22)


def _result(group: Group, name: str) -> Measured:
    return next(result for result in group.results if result.name == name)


def _reason(result: Measured) -> str:
    """Return why there are no figures, in two or three words."""
    return (result.unavailable or "").partition(":")[0]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _plain_numbers(axis: Any) -> None:
    """Label ticks as 1, 2, 5, 10 instead of powers: the range is often below a decade."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
