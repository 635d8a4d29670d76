"""Accuracy and calibration of a classifier's predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BEST_CLASSES = 5
"""The most probable classes that are kept of each prediction."""
_BINS = 15


@dataclass(frozen=True)
class Predictions:
    """Predictions of a classifier for a data set, in the order of the data.

    Attributes:
        labels: True classes, int64 [n].
        losses: Cross-entropy of each image, float64 [n].
        classes: The most probable classes, best first, int64 [n, k]; k is 5, or the number of
            classes if they are fewer.
        probabilities: Of these, float32 [n, k].
    """

    labels: Tensor
    losses: Tensor
    classes: Tensor
    probabilities: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether the best class is the true one: bool [n]."""
        return self.classes[:, 0] == self.labels


def measure(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of a classifier.

    Args:
        predictions: Predictions of one image or more.
        names: Names of the classes.

    Returns:
        ``top1``; ``top5`` of more than five classes; ``class_mean``, the mean accuracy over the
        classes that there are images of; ``loss``, the mean cross-entropy, and ``negative_loss``;
        ``calibration_error``; and ``per_class``, the accuracy by name, None where there is no
        image. All but the losses are in 0..1.
    """
    hits = predictions.classes == predictions.labels[:, None]
    metrics: dict[str, Any] = {"top1": _mean(hits[:, 0])}
    if len(names) > BEST_CLASSES:
        metrics["top5"] = _mean(hits.any(dim=1))
    per_class: dict[str, float | None] = {}
    for index, name in enumerate(names):
        own = hits[predictions.labels == index, 0]
        per_class[name] = _mean(own) if len(own) else None
    seen = [accuracy for accuracy in per_class.values() if accuracy is not None]
    loss = _mean(predictions.losses)
    return {
        **metrics,
        "class_mean": sum(seen) / len(seen),
        "loss": loss,
        "negative_loss": -loss,
        "calibration_error": calibration_error(predictions),
        "per_class": per_class,
    }


def calibration(predictions: Predictions) -> Tensor:
    """Number of images, mean probability and accuracy by probability of the best class.

    Returns:
        float64 [3, 15]; bins are (0, 1/15], (1/15, 2/15] and so on. Empty ones are zero.
    """
    confidence = predictions.probabilities[:, 0].double()
    bins = (confidence * _BINS).ceil().long().sub(1).clamp(0, _BINS - 1)
    sums = torch.zeros(3, _BINS, dtype=torch.float64)
    for row, values in enumerate(
        (torch.ones_like(confidence), confidence, predictions.correct.double())
    ):
        sums[row].index_add_(0, bins, values)
    sums[1:] /= sums[0].clamp(min=1)
    return sums


def calibration_error(predictions: Predictions) -> float:
    """Expected calibration error over 15 bins (Guo et al. 2017), in 0..1."""
    count, confidence, accuracy = calibration(predictions)
    return float((count * (confidence - accuracy).abs()).sum() / count.sum())


def confusion(predictions: Predictions, count: int) -> Tensor:
    """Images by true class (rows) and predicted class (columns): int64 [count, count]."""
    pairs = predictions.labels * count + predictions.classes[:, 0]
    return torch.bincount(pairs, minlength=count * count).reshape(count, count)


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
