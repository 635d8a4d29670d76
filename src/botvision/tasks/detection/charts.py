"""Charts of a detector's evaluation: precision and recall, AP by class and size, confusion."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from botvision.datasets.coco.store import CocoAnnotations
from botvision.images.figures import matrix_figure, plain_text, save_figure
from botvision.supervision_import import import_supervision

_COLORS = {"box": "tab:blue", "mask": "tab:orange"}
_SIZES = ("small", "medium", "large")
_IOUS = {"IoU 0.5": slice(0, 1), "IoU 0.75": slice(5, 6), "IoU 0.5 to 0.95": slice(None)}
_MOST_NAMED_CURVES = 12
_MOST_CLASS_ROWS = 100
_IOU = _SCORE = 0.5  # of the confusion matrix


def draw_charts(
    folder: Path,
    annotations: CocoAnnotations,
    results: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any],
    precision: Mapping[str, NDArray[np.float64]],
) -> None:
    """Write ``pr_curve.png``, ``per_class.png`` and ``confusion_matrix.png``.

    Args:
        folder: Folder to write to; files of these names are replaced.
        annotations: Ground truth.
        results: Detections in COCO's results format.
        metrics: Metrics of ``CocoMetrics.evaluate``.
        precision: ``CocoMetrics.precision``.
    """
    names = [category.name for category in annotations.categories]
    save_figure(precision_recall_figure(precision, names), folder / "pr_curve.png")
    save_figure(per_class_figure(metrics, names), folder / "per_class.png")
    matrix = confusion_matrix(annotations, results)
    save_figure(confusion_figure(matrix, names), folder / "confusion_matrix.png")


def precision_recall_figure(
    precision: Mapping[str, NDArray[np.float64]], names: Sequence[str]
) -> Figure:
    """Precision over recall: thin lines are classes, thick ones their mean.

    Args:
        precision: ``CocoMetrics.precision``.
        names: Class names, in its order.

    Returns:
        A row of panels for boxes and one for masks, a column for each IoU. Classes without truth
        are left out; up to 12 classes are named.
    """
    named = len(names) <= _MOST_NAMED_CURVES
    figure = Figure(figsize=(15, 0.6 + 3.8 * len(precision)), layout="constrained")
    panels = figure.subplots(len(precision), len(_IOUS), squeeze=False, sharex=True, sharey=True)
    palette = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for row, (kind, values) in zip(panels, precision.items(), strict=True):
        recalls = np.linspace(0, 1, values.shape[1])
        present = [place for place in range(len(names)) if (values[:, :, place] > -1).any()]
        for axes, (title, ious) in zip(row, _IOUS.items(), strict=True):
            curves = values[ious].mean(axis=0)
            for place in present:
                label = "a class" if place == present[0] else None
                style: dict[str, Any] = {"color": "gray", "alpha": 0.4, "linewidth": 0.8}
                if named:
                    label, style = plain_text(names[place]), {"color": palette[place]}
                axes.plot(recalls, curves[:, place], label=label, **style)
            shown = f"no {kind} truth"
            if present:
                mean = curves[:, present].mean(axis=1)
                if len(present) > 1:
                    axes.plot(recalls, mean, "black", linewidth=3, label="mean of the classes")
                shown = f"AP {mean.mean():.3f}"
            axes.set(title=f"{kind}, {title}: {shown}", xlim=(0, 1), ylim=(0, 1.03))
            axes.grid(alpha=0.3)
        row[0].set_ylabel("precision")
    for axes in panels[-1]:
        axes.set_xlabel("recall")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center")
    return figure


def per_class_figure(metrics: Mapping[str, Any], names: Sequence[str]) -> Figure:
    """AP of each class, and by size: a row for all classes, then a row for each, the best first.

    Args:
        metrics: Metrics of ``CocoMetrics.evaluate``.
        names: Class names. Of more than 100 the 100 of the lowest AP are shown.
    """
    kinds = [kind for kind in ("box", "mask") if f"{kind}_ap" in metrics]
    leading = metrics[f"{kinds[-1]}_ap_per_class"]
    # Classes without truth have an AP of -1 and come last.
    shown = sorted(names, key=lambda name: -leading[name])[-_MOST_CLASS_ROWS:]
    rows = len(shown) + 1
    figure = Figure(figsize=(12, 1.8 + 0.24 * rows), layout="constrained")
    bars, sizes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1 + len(kinds)))
    thickness = 0.8 / len(kinds)
    for index, kind in enumerate(kinds):
        values = [metrics[f"{kind}_ap"], *(metrics[f"{kind}_ap_per_class"][n] for n in shown)]
        places = np.arange(rows) + thickness * (index - (len(kinds) - 1) / 2)
        widths = np.maximum(values, 0)
        bars.barh(places, widths, thickness, color=_COLORS[kind], label=f"{kind} AP")
        for place, value in zip(places, values, strict=True):
            note = "no truth" if value < 0 else f"{value:.3f}"
            bars.text(max(value, 0) + 0.005, place, note, va="center", fontsize=6.5)
    bars.set_yticks(range(rows), ["all classes", *map(plain_text, shown)])
    bars.get_yticklabels()[0].set_fontweight("bold")
    highest = max([0.05, *(metrics[f"{kind}_ap_per_class"][n] for kind in kinds for n in shown)])
    hidden = len(names) - len(shown)
    title = "AP of each class" + (f" ({hidden} classes of higher AP left out)" if hidden else "")
    bars.set(title=title, xlim=(0, 1.12 * highest), ylim=(rows - 0.5, -0.5))
    bars.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside lower center", ncols=len(kinds))
    _draw_sizes(sizes, metrics, shown, kinds)
    return figure


def _draw_sizes(
    axes: Any, metrics: Mapping[str, Any], shown: Sequence[str], kinds: Sequence[str]
) -> None:
    """A cell for each row and size, colored by AP; empty where there is no truth of it."""
    columns = [f"{kind}_ap_{size}" for kind in kinds for size in _SIZES]
    table = np.array(
        [
            [metrics[name] for name in columns],
            *([metrics[f"{name}_per_class"][each] for name in columns] for each in shown),
        ]
    )
    colors = matplotlib.colormaps["viridis"]
    axes.imshow(np.ma.masked_less(table, 0), cmap=colors, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        note = "-" if value < 0 else f"{value:.3f}"
        color = "black" if value < 0 or value > 0.6 else "white"
        axes.text(column, row, note, ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(columns)), [name.replace("_ap_", "\n") for name in columns])
    axes.set(title="AP by size")
    axes.tick_params(left=False, labelleft=False)


def confusion_matrix(
    annotations: CocoAnnotations, results: Sequence[Mapping[str, Any]]
) -> NDArray[np.int64]:
    """Numbers of boxes by true and predicted class, at IoU 0.5 and score 0.5, by supervision.

    A box matches one box at most, of its own class rather than of another, then the one of higher
    IoU. Crowds are left out; what is found in them counts as background.

    Args:
        annotations: The truth.
        results: Detections in COCO's results format.

    Returns:
        [classes + 1, classes + 1]: rows are the truth, columns what was predicted, the last of
        each is the background.
    """
    place = {category.id: index for index, category in enumerate(annotations.categories)}
    found: dict[Any, list[list[float]]] = {image["id"]: [] for image in annotations.images}
    for result in results:
        found[result["image_id"]].append([*_row(result, place), result["score"]])
    truth = {
        image: [_row(each, place) for each in instances if not each.get("iscrowd")]
        for image, instances in annotations.instances.items()
    }
    matrix = import_supervision().ConfusionMatrix.from_tensors(
        predictions=[np.array(found[i], dtype=np.float32).reshape(-1, 6) for i in found],
        targets=[np.array(truth[i], dtype=np.float32).reshape(-1, 5) for i in found],
        classes=[category.name for category in annotations.categories],
        conf_threshold=_SCORE,
        iou_threshold=_IOU,
    )
    return matrix.matrix.astype(np.int64)


def _row(record: Mapping[str, Any], place: Mapping[int, int]) -> list[float]:
    """x1, y1, x2, y2 and class."""
    x, y, width, height = record["bbox"]
    return [x, y, x + width, y + height, place[record["category_id"]]]


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Return the figure of a ``confusion_matrix`` of classes of these names."""
    return matrix_figure(matrix, names, f"Boxes at IoU {_IOU} and score {_SCORE}, without crowds")
