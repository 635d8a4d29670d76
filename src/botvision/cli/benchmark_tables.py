"""Benchmark reports as tables."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Column, Table

from botvision.cli.display import figure_columns

if TYPE_CHECKING:
    from botvision.benchmark.attention_benchmark import AttentionReport
    from botvision.benchmark.backbone_benchmark import BackboneReport
    from botvision.benchmark.machine import Machine
    from botvision.benchmark.measuring import Group, Measured
    from botvision.benchmark.training_benchmark import Cost, TrainingReport
    from botvision.predict.speed import PredictionSpeed

_COLUMNS = ("ms", "spread", "ratio", "peak", "+MiB")
_LEGEND = (
    "ms: median of {rounds} interleaved rounds. spread: interquartile range. ratio: to the first. "
    "peak: rate of the products as a fraction of a large matrix product's in the same rounds. "
    "+MiB: memory that the pass adds, at its peak."
)


def attention_table(report: "AttentionReport") -> Table:
    """Return one section per map, dtype and pass, with one row per layer."""
    from botvision.benchmark.attention_layers import layer_title

    settings = report.settings
    title = f"Attention: {settings.heads} heads of {settings.head_dim}, batch {settings.batch}"
    table = _table(title, "layer", *_COLUMNS)
    reasons = defaultdict(list)
    for group in report.groups:
        where = f"{group.height}x{group.width} {group.dtype} {group.pass_name}"
        table.add_row(f"[bold]{where}[/bold]")
        for result in group.results:
            table.add_row(layer_title(result.name), *_cells(result))
            if result.unavailable:
                reasons[f"{layer_title(result.name)}: {result.unavailable}"].append(where)
        table.add_section()
    table.caption = _caption(report.machine, report.groups, reasons)
    return table


def backbone_table(report: "BackboneReport") -> Table:
    """Return one section per pass, with one row per model."""
    settings = report.settings
    title = f"Models: batch {settings.batch}, {settings.dtype}"
    table = _table(title, "model", "params\nM", "mult-\nadds G", *_COLUMNS)
    reasons = defaultdict(list)
    for group in report.groups:
        table.add_row(f"[bold]{group.pass_name}[/bold]")
        for model, result in zip(settings.models, group.results, strict=True):
            costs = (f"{model.parameters / 1e6:.2f}", f"{model.multiply_adds / 1e9:.2f}")
            table.add_row(result.name, *costs, *_cells(result))
            if result.unavailable:
                reasons[f"{result.name}: {result.unavailable}"].append(group.pass_name)
        table.add_section()
    table.caption = _caption(report.machine, report.groups, reasons)
    return table


def training_table(report: "TrainingReport") -> Table:
    """Return one row per figure."""
    name, num_workers = report.recipe["name"], report.recipe["training"]["num_workers"]
    table = Table(
        title=f"Training {escape(name)}: batch {report.images}, {num_workers} workers",
        box=box.SIMPLE,
        caption_justify="left",
        show_header=False,
    )
    rows = {
        "waiting for data": f"{report.waiting:.1%}",
        "images per second": f"{report.images_per_second:.2f}",
        "reading an image, one process": f"{1e3 * report.read.seconds:.0f} ms",
        "step of the loop": f"{1e3 * report.loop.seconds:.0f} ms",
        "bare step": f"{1e3 * report.bare.seconds:.0f} ms",
        "cost of the loop": _cost(report.cost),
    }
    if report.processor_cost is not None:
        rows["the same, processor time"] = _cost(report.processor_cost)
    for row in rows.items():
        table.add_row(*row)
    table.caption = escape(
        f"{report.steps} steps; medians, and quartiles of the cost. Bare: forward, backward and "
        "optimizer, in turns with the loop on the same batches in memory. Without evaluation and "
        f"saving.\n{report.machine.title()}"
    )
    return table


def _cost(cost: "Cost") -> str:
    return f"{cost.median:.1%} ({cost.low:.1%} to {cost.high:.1%})"


def _table(title: str, name: str, *figures: str) -> Table:
    columns = (Column(name, no_wrap=True), *figure_columns(*figures))
    return Table(
        *columns, title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), caption_justify="left"
    )


def _cells(result: "Measured") -> list[str]:
    if result.seconds is None or result.spread is None:
        return ["-"] * len(_COLUMNS)
    milliseconds, memory = 1e3 * result.seconds, result.memory_bytes
    return [
        f"{milliseconds:.0f}" if milliseconds >= 1000 else f"{milliseconds:.4g}",
        f"{result.spread:.0%}",
        "-" if result.ratio is None else f"{result.ratio:.2f}",
        "-" if result.utilization is None else f"{result.utilization:.0%}",
        "-" if memory is None else f"{memory / 2**20:.0f}",
    ]


def _caption(
    machine: "Machine", groups: Sequence["Group"], reasons: Mapping[str, Sequence[str]]
) -> str:
    """Return the legend, the machine, and why and where figures are missing."""
    rounds = sorted({group.rounds for group in groups if group.rounds})
    counts = " to ".join(str(count) for count in dict.fromkeys((*rounds[:1], *rounds[-1:])))
    lines = [_LEGEND.format(rounds=counts or "no"), machine.title()]
    for reason, where in reasons.items():
        everywhere = len(where) == len(groups)
        lines.append(reason if everywhere else f"{reason} ({', '.join(where)})")
    return escape("\n".join(lines))


def prediction_table(speed: "PredictionSpeed") -> Table:
    """Return the speeds of a prediction as a table."""
    title = (
        f"{speed.images} images, batches of {speed.batch_size}, {speed.threads} threads, "
        f"median of {speed.rounds} rounds"
    )
    table = Table("part", title=title)
    table.add_column("images/s", justify="right")
    table.add_column("of the model's", justify="right")
    for name, value in (
        ("model alone", speed.model),
        ("files to results", speed.results),
        ("files to results and overlays", speed.overlays),
    ):
        table.add_row(name, f"{value:.1f}", f"{100 * value / speed.model:.0f}%")
    return table
