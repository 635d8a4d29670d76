"""Evaluating a weights file on a COCO folder, or a classifier's on class folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from botvision.datasets.coco.augmentation import evaluation_transform
from botvision.datasets.coco.dataset import CocoInstances
from botvision.errors import BotvisionError
from botvision.predict.class_evaluation import evaluate_classifier
from botvision.predict.class_predictor import ClassPredictor
from botvision.predict.loading import load_sized
from botvision.predict.predictor import Predictor
from botvision.shards.mirror import open_data_folder
from botvision.tasks.detection.evaluation import evaluate_detector
from botvision.tasks.detection.settings import read_detector_settings
from botvision.training.settings import TrainingSettings


def evaluate_weights(
    weights: str | Path,
    folder: str | Path | None,
    *,
    split: str | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    tta: bool = False,
    skip_bad: bool = False,
    output: Path | None = None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Metrics of a weights file, in the precision it was trained in.

    Args:
        weights: See ``load``.
        folder: COCO folder, or class folders, or their address; what it was trained on if None.
        split: Split of the folder; the one that the training evaluated if None.
        batch_size: Images at a time; as in the training if None, whose figures it then gives.
        image_size: Side in pixels that the longer side of an image is resized to for a detector,
            and of the square that a classifier sees; that of the training if None.
        tta: See ``evaluate_classifier``, as the next two.
        skip_bad: For a classifier.
        output: For a classifier.
        progress: Called with the images done and their total.

    Returns:
        See ``CocoMetrics.evaluate`` and ``evaluate_classifier``.

    Raises:
        BotvisionError: If the weights or the data cannot be used, or their classes differ, or
            if a detector is to do what only classifiers do.
    """
    predictor = load_sized(weights, image_size)
    recipe = predictor.description.get("recipe", {})
    split = split or recipe.get("data", {}).get("val_split", "val")
    if isinstance(predictor, ClassPredictor):
        return evaluate_classifier(
            predictor,
            folder,
            weights=weights,
            split=split,
            batch_size=batch_size,
            tta=tta,
            skip_bad=skip_bad,
            output=output,
            progress=progress,
        )
    for option, given in (("--tta", tta), ("--skip-bad", skip_bad), ("--output", output)):
        if given:
            raise BotvisionError(
                f"{option}: expected a classifier's weights, got a detector's, {weights}; leave it "
                "out"
            )
    return _evaluate_detector(
        predictor,
        folder,
        weights=weights,
        split=split,
        batch_size=batch_size or TrainingSettings(**recipe["training"]).evaluated_at_once,
        image_size=image_size,
        progress=progress,
    )


def _evaluate_detector(
    predictor: Predictor,
    folder: str | Path | None,
    *,
    weights: str | Path,
    split: str,
    batch_size: int,
    image_size: int | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    source = str(folder or predictor.description["recipe"]["data"]["folder"])
    masks = read_detector_settings(predictor.description["model"]).masks
    data = CocoInstances(
        open_data_folder(source), split, transform=evaluation_transform(), masks=masks
    )
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
