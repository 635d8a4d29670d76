"""Metrics against plain numpy on every image's logits."""

import math

import numpy as np
import pytest
import torch

from botvision.tasks.classification.metrics import (
    Predictions,
    calibration,
    calibration_error,
    confusion,
    measure,
)

NAMES = [f"class {number}" for number in range(8)]


def predictions(logits, labels):
    """From logits by numpy, in float64."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    best = np.argsort(-shares, axis=1)[:, :5]
    return (
        Predictions(
            torch.from_numpy(labels),
            torch.from_numpy(-np.log(shares[np.arange(len(labels)), labels])),
            torch.from_numpy(best),
            torch.from_numpy(np.take_along_axis(shares, best, axis=1)),
        ),
        shares,
    )


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 500)  # none of the last class
    logits = 2 * rng.normal(size=(500, 8))
    logits[np.arange(500), labels] += 1.5
    found, shares = predictions(logits, labels)
    return found, shares, labels


def test_accuracies(example):
    found, shares, labels = example
    metrics = measure(found, NAMES)
    truth = shares[np.arange(500), labels]
    rank = (shares > truth[:, None]).sum(axis=1)
    assert metrics["top1"] == pytest.approx((rank == 0).mean(), abs=1e-12)
    assert metrics["top5"] == pytest.approx((rank < 5).mean(), abs=1e-12)
    per_class = [(rank[labels == place] == 0).mean() for place in range(7)]
    assert list(metrics["per_class"]) == NAMES
    assert list(metrics["per_class"].values()) == [*map(pytest.approx, per_class), None]
    assert metrics["class_mean"] == pytest.approx(np.mean(per_class))
    assert metrics["loss"] == -metrics["negative_loss"] == pytest.approx(-np.log(truth).mean())
    assert 0.2 < metrics["top1"] < metrics["top5"] < 1


def test_up_to_five_classes_have_no_top5():
    found, _ = predictions(np.eye(5), np.arange(5))
    metrics = measure(found, NAMES[:5])
    assert metrics["top1"] == 1
    assert "top5" not in metrics


def test_calibration_error(example):
    found, shares, labels = example
    confidence, correct = shares.max(axis=1), shares.argmax(axis=1) == labels
    expected = 0.0
    for lower in np.arange(15) / 15:
        inside = (confidence > lower) & (confidence <= lower + 1 / 15)
        if inside.any():
            gap = abs(confidence[inside].mean() - correct[inside].mean())
            expected += inside.mean() * gap
    assert calibration_error(found) == pytest.approx(expected, abs=1e-9)
    assert calibration_error(found) > 0.01
    counts, _ = np.histogram(confidence, bins=15, range=(0, 1))
    assert calibration(found)[0].tolist() == counts.tolist()


def test_calibration_by_hand():
    # Four of 0.8 of which three are right, one of 1.0 that is right.
    found = Predictions(
        torch.tensor([0, 0, 0, 1, 0]),
        torch.zeros(5),
        torch.zeros(5, 1, dtype=torch.int64),
        torch.tensor([[0.79], [0.79], [0.79], [0.79], [1.0]]),
    )
    assert calibration_error(found) == pytest.approx(4 / 5 * (0.79 - 0.75))


def test_confusion(example):
    found, shares, labels = example
    expected = np.zeros((8, 8), int)
    np.add.at(expected, (labels, shares.argmax(axis=1)), 1)
    assert confusion(found, 8).tolist() == expected.tolist()


def test_certain_and_wrong_is_finite_in_the_figures():
    found, _ = predictions(np.array([[200.0, 0.0], [0.0, 200.0]]), np.array([1, 1]))
    metrics = measure(found, NAMES[:2])
    assert metrics["top1"] == metrics["calibration_error"] == 0.5
    assert math.isclose(metrics["loss"], 100.0)
