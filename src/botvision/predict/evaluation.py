"""Evaluating a weights file on a COCO folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from botvision.data.augmentation import evaluation_transform
from botvision.data.instances import CocoInstances
from botvision.detection.evaluation import evaluate_detector
from botvision.detection.settings import read_detector_settings
from botvision.errors import BotvisionError
from botvision.predict.predictor import load


def evaluate_weights(
    weights: Path,
    folder: Path | None,
    *,
    split: str = "val",
    batch_size: int = 8,
    image_size: int | None = None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """COCO metrics of a weights file, in the precision it was trained in.

    Args:
        weights: See ``load``.
        folder: COCO folder; the one it was trained on if None.
        split: Split of the folder.
        batch_size: Images at a time.
        image_size: Side in pixels that the longer side of an image is resized to; that of the
            training if None.
        progress: Called with the images done and their total.

    Returns:
        See ``CocoMetrics.evaluate``.

    Raises:
        BotvisionError: If the weights or the data cannot be used, or their classes differ.
    """
    predictor = load(weights)
    folder = folder or Path(predictor.description["recipe"]["data"]["folder"])
    masks = read_detector_settings(predictor.description["model"]).masks
    data = CocoInstances(folder, split, transform=evaluation_transform(), masks=masks)
    if data.categories != predictor.categories:
        raise BotvisionError(
            f"{data.annotations.path}: categories: expected those of {weights}, "
            f"{_names(predictor.categories)}, got {_names(data.categories)}"
        )
    if image_size is not None:
        _resize_to(image_size, predictor.model.transform)
    metrics, _ = evaluate_detector(
        predictor.model,
        data,
        precision=predictor.precision,
        batch_size=batch_size,
        masks=masks,
        progress=progress,
    )
    return metrics


def _resize_to(side: int, transform: Any) -> None:
    """Let a detector's transform fit images into another square."""
    if transform.size_divisible == transform.max_size:  # it pads to the whole square, as DETR's
        transform.size_divisible = side
    transform.min_size, transform.max_size = (side,), side


def _names(categories: list[Any]) -> str:
    return ", ".join(f"{category.id} {category.name}" for category in categories)
