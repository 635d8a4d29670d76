"""Figures of a classifier's data and evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from botvision.images.figures import matrix_figure, plain_text, save_figure
from botvision.tasks.classification.metrics import (
    Predictions,
    calibration,
    calibration_error,
    confusion,
)

_NAMED_CLASSES = 60  # more cannot be read along an axis
_SHOWN_EXTREMES = 25
_TRAIN_COLOR, _VAL_COLOR = "#1f5fa8", "#9bbfe0"


def draw_labels(train: Tensor, val: Tensor, names: Sequence[str], path: Path) -> None:
    """Draw the number of images of each class, in both splits, as bars.

    Args:
        train: Labels of the training data, int64 [n].
        val: Labels of the validation data, int64 [m].
        names: Names of the classes.
        path: PNG to write or replace.
    """
    width = min(18.0, max(6.0, 0.3 * len(names) + 2))
    figure = Figure(figsize=(width, 4.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))
    for labels, what, color, shift in (
        (train, "train", _TRAIN_COLOR, -0.2),
        (val, "val", _VAL_COLOR, 0.2),
    ):
        counts = np.bincount(labels.numpy(), minlength=len(names))
        axes.bar(places + shift, counts, 0.4, label=f"{what}: {len(labels)}", color=color)
    if len(names) <= _NAMED_CLASSES:
        axes.set_xticks(places, [*map(plain_text, names)], rotation=90)
    axes.set(title=f"Images of each of {len(names)} classes", ylabel="images")
    figure.legend(loc="outside upper right", ncols=2)
    save_figure(figure, path)


def draw_confusion(predictions: Predictions, names: Sequence[str], path: Path) -> None:
    """Draw which class is taken for which, as fractions of the true class.

    Args:
        predictions: Predictions of an evaluation.
        names: Names of the classes.
        path: PNG to write or replace.
    """
    matrix = confusion(predictions, len(names)).numpy()
    save_figure(matrix_figure(matrix, names, "Confusion matrix (images)"), path)


def draw_calibration(predictions: Predictions, path: Path) -> None:
    """Draw the accuracy over the predicted probability, and how often each is predicted.

    Args:
        predictions: Predictions of an evaluation.
        path: PNG to write or replace.
    """
    count, confidence, accuracy = calibration(predictions).numpy()
    bins = len(count)
    middles = (np.arange(bins) + 0.5) / bins
    figure = Figure(figsize=(5.5, 6.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    seen = count > 0
    upper.bar(
        middles[seen], accuracy[seen], 1 / bins, color=_VAL_COLOR, edgecolor="white", label="bins"
    )
    upper.plot(confidence[seen], accuracy[seen], "o-", color=_TRAIN_COLOR, label="their means")
    upper.plot([0, 1], [0, 1], "--", color="gray", label="calibrated")
    error = calibration_error(predictions)
    upper.set(title=f"Expected calibration error {error:.3f}", ylabel="accuracy", ylim=(0, 1))
    upper.legend(fontsize="small")
    lower.bar(middles, count / count.sum(), 1 / bins, color=_TRAIN_COLOR, edgecolor="white")
    lower.set(xlabel="probability of the predicted class", ylabel="fraction of images", xlim=(0, 1))
    save_figure(figure, path)


def draw_per_class(accuracies: dict[str, float | None], path: Path) -> None:
    """Draw the accuracy of each class, best first; of many classes the best and the worst.

    Args:
        accuracies: Accuracy by class; None where there was no image.
        path: PNG to write or replace.
    """
    known = {name: value for name, value in accuracies.items() if value is not None}
    names = sorted(known, key=lambda name: (-known[name], name))
    title = f"Accuracy of {len(names)} classes"
    if len(names) > 2 * _SHOWN_EXTREMES:
        title += f": the {_SHOWN_EXTREMES} best and the {_SHOWN_EXTREMES} worst"
        names = names[:_SHOWN_EXTREMES] + names[-_SHOWN_EXTREMES:]
    figure = Figure(figsize=(7, max(2.5, 0.24 * len(names) + 1)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), [known[name] for name in names], color=_TRAIN_COLOR)
    axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.set_yticks(range(len(names)), [*map(plain_text, names)], fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set(title=title, xlim=(0, 1.08))
    save_figure(figure, path)
