"""Evaluating a weights file on a COCO folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from botvision.data.augmentation import evaluation_transform
from botvision.data.instances import CocoInstances
from botvision.detection.evaluation import evaluate_detector
from botvision.errors import BotvisionError
from botvision.predict.predictor import load


def evaluate_weights(
    weights: Path,
    folder: Path | None,
    *,
    split: str = "val",
    batch_size: int = 8,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """COCO metrics of a weights file, in the precision it was trained in.

    Args:
        weights: See ``load``.
        folder: COCO folder; the one it was trained on if None.
        split: Split of the folder.
        batch_size: Images at a time.
        progress: Called with the images done and their total.

    Returns:
        See ``CocoMetrics.evaluate``.

    Raises:
        BotvisionError: If the weights or the data cannot be used, or their classes differ.
    """
    predictor = load(weights)
    folder = folder or Path(predictor.description["recipe"]["data"]["folder"])
    masks = predictor.model.roi_heads.has_mask()
    data = CocoInstances(folder, split, transform=evaluation_transform(), masks=masks)
    if data.categories != predictor.categories:
        raise BotvisionError(
            f"{data.annotations.path}: categories: expected those of {weights}, "
            f"{_names(predictor.categories)}, got {_names(data.categories)}"
        )
    metrics, _ = evaluate_detector(
        predictor.model,
        data,
        precision=predictor.precision,
        batch_size=batch_size,
        masks=masks,
        progress=progress,
    )
    return metrics


def _names(categories: list[Any]) -> str:
    return ", ".join(f"{category.id} {category.name}" for category in categories)
