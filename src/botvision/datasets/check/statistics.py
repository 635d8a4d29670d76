"""Statistics of a COCO file: classes, sizes and shapes of its objects, as counts and a figure."""

import math
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from botvision.datasets.coco.store import Array, CocoAnnotations, InstanceTable
from botvision.images.figures import plain_text, save_figure

_MOST_CLASSES = 40
_MEDIUM, _LARGE = 32.0, 96.0  # COCO's: sides of the squares as large as the smallest of each
_BINS = 50
_TICKS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


def count_statistics(annotations: CocoAnnotations) -> dict[str, Any]:
    """Return counts of a COCO file for JSON; crowds are counted apart.

    Returns:
        ``images``, ``images_without_instances``, ``instances``, ``crowds``,
        ``instances_per_image`` (``mean`` and ``most``), ``instances_per_class`` by name, the most
        frequent first, ``sizes`` (``small`` under 32² pixels of area, ``medium`` under 96²,
        ``large``), ``skipped`` by reason and ``clipped`` boxes.
    """
    table, per_image, sides = _read(annotations)
    small, large = int((sides < _MEDIUM).sum()), int((sides >= _LARGE).sum())
    return {
        "images": len(per_image),
        "images_without_instances": int((per_image == 0).sum()),
        "instances": len(sides),
        "crowds": int(table.crowds.sum()),
        "instances_per_image": {
            "mean": float(per_image.mean()) if len(per_image) else 0.0,
            "most": int(per_image.max(initial=0)),
        },
        "instances_per_class": _per_class(annotations, table),
        "sizes": {"small": small, "medium": len(sides) - small - large, "large": large},
        "skipped": dict(annotations.skipped),
        "clipped": annotations.clipped,
    }


def draw_statistics(annotations: CocoAnnotations, path: Path) -> None:
    """Draw the statistics of a COCO file.

    Args:
        annotations: Annotation file.
        path: PNG file to write or replace.
    """
    save_figure(statistics_figure(annotations), path)


def statistics_figure(annotations: CocoAnnotations) -> Figure:
    """Plot instances per class, box shapes, sizes and instances per image, without crowds."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(2, 3))
    classes, others = parts
    statistics = count_statistics(annotations)
    _draw_classes(classes.subplots(), statistics)
    (shapes, sizes), (per_image, text) = others.subplots(2, 2)
    table, counts, sides = _read(annotations)
    most = int(counts.max(initial=0))
    _draw_shapes(shapes, table, annotations.image_sizes)
    _draw_sizes(sizes, sides)
    step = max(1, math.ceil((most + 1) / _BINS))
    per_image.hist(counts, bins=np.arange(0, most + step + 1, step) - 0.5, color="tab:blue")
    per_image.set(title="Instances of an image", xlabel="instances", ylabel="images")
    per_image.grid(alpha=0.3)
    text.axis("off")
    text.text(0, 1, _summary(statistics), va="top", family="monospace")
    return figure


def _draw_classes(axes: Any, statistics: dict[str, Any]) -> None:
    counts = list(statistics["instances_per_class"].items())
    shown = counts[:_MOST_CLASSES]
    axes.barh(range(len(shown)), [count for _, count in shown], color="tab:blue")
    for row, (_, count) in enumerate(shown):
        axes.annotate(
            str(count), (count, row), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(shown)), [plain_text(name) for name, _ in shown])
    axes.set_ylim(max(len(shown), 20) - 0.5, -0.5)  # a few classes are no reason for thick bars
    title = "Instances of each class"
    if len(shown) < len(counts):
        title += f": the {len(shown)} most frequent of {len(counts)}"
    axes.set(title=title, xlabel="instances")
    axes.margins(x=0.12)
    axes.grid(alpha=0.3, axis="x")


def _draw_shapes(axes: Any, table: InstanceTable, image_sizes: Array) -> None:
    shown = ~table.crowds
    if shown.any():
        shapes = table.boxes[shown, 2:] / image_sizes[table.image_index[shown]]
        widths, heights = shapes.T
        bounds = np.linspace(0, 1, _BINS + 1)
        *_, drawn = axes.hist2d(widths, heights, bins=(bounds, bounds), norm=LogNorm(), cmin=1)
        bar = axes.figure.colorbar(drawn, ax=axes, label="instances", format=FuncFormatter(_number))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.set_ticks([tick for tick in _TICKS if tick <= drawn.get_clim()[1]])
    axes.set(title="Boxes", xlabel="width / image width", ylabel="height / image height")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)


def _draw_sizes(axes: Any, sides: Array) -> None:
    lowest, highest = float(sides.min(initial=_MEDIUM)), float(sides.max(initial=_LARGE))
    # COCO's bounds are always visible, to show which sizes are missing, and bins end at them.
    ratio = math.log(_LARGE / _MEDIUM)
    first = math.floor(8 * math.log(min(lowest, 16.0) / _MEDIUM) / ratio)
    last = math.floor(8 * math.log(max(highest, 192.0) / _MEDIUM) / ratio) + 1
    bounds = _MEDIUM * np.exp(ratio / 8 * np.arange(first, last + 1))
    axes.hist(sides, bins=bounds, color="tab:blue")
    axes.set(title="Sizes", xlabel="square root of the area (pixels)", ylabel="instances")
    axes.set(xscale="log", xlim=(bounds[0], bounds[-1]))
    ticks = [power for power in (1, 2, 4, 8, 16, 32, 96, 256, 1024) if power >= bounds[0]]
    axes.set_xticks([tick for tick in ticks if tick <= bounds[-1]])
    axes.xaxis.set_major_formatter(FuncFormatter(_number))
    axes.xaxis.set_minor_locator(NullLocator())
    names = {"small": bounds[0], "medium": _MEDIUM, "large": _LARGE}
    for (name, start), end in zip(names.items(), (_MEDIUM, _LARGE, bounds[-1]), strict=True):
        axes.axvline(start, color="black", linestyle="--", linewidth=1)
        middle = math.sqrt(start * end)
        axes.text(middle, 0.98, name, transform=axes.get_xaxis_transform(), ha="center", va="top")
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)


def _summary(statistics: dict[str, Any]) -> str:
    per_image, sizes = statistics["instances_per_image"], statistics["sizes"]
    empty = sum(count == 0 for count in statistics["instances_per_class"].values())
    lines = [
        f"{statistics['images']} images",
        f"{statistics['images_without_instances']} of them without instances",
        f"{statistics['instances']} instances",
        f"{statistics['crowds']} crowds besides",
        f"{per_image['mean']:.1f} instances per image, at most {per_image['most']}",
        f"{len(statistics['instances_per_class'])} classes, {empty} without instances",
        ", ".join(f"{count} {size}" for size, count in sizes.items()),
        "",
        "left out:" if statistics["skipped"] else "nothing left out",
        *(
            textwrap.fill(f"{count}: {reason}", 36, initial_indent="  ", subsequent_indent="    ")
            for reason, count in statistics["skipped"].items()
        ),
    ]
    return "\n".join(lines)


def _read(annotations: CocoAnnotations) -> tuple[InstanceTable, Array, Array]:
    """Return all instances, the count per image, and the square root of each area.

    The latter two are without crowds. Where the file gives no area it is that of the box.
    """
    table = annotations.instance_table()
    counted = ~table.crowds
    per_image = np.bincount(table.image_index[counted], minlength=len(annotations.images))
    areas, boxes = table.areas[counted], table.boxes[counted]
    given = (areas > 0) & (areas < math.inf)
    with np.errstate(over="ignore"):
        sides = np.sqrt(np.where(given, areas, boxes[:, 2] * boxes[:, 3]))
    return table, per_image, sides


def _per_class(annotations: CocoAnnotations, table: InstanceTable) -> dict[str, int]:
    indices = table.category_index[~table.crowds]
    counts: Counter[str] = Counter()
    found = np.bincount(indices, minlength=len(annotations.categories)).tolist()
    for category, count in zip(annotations.categories, found, strict=False):
        counts[category.name] += count
    return dict(counts.most_common())


def _number(value: float, _: int) -> str:
    return f"{value:g}"
