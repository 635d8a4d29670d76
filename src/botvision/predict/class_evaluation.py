"""Evaluating a classifier's weights on class folders or archives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from botvision.datasets.folders.dataset import ClassImages
from botvision.errors import BotvisionError
from botvision.predict.class_predictor import ClassPredictor
from botvision.tasks.classification.charts import draw_calibration, draw_confusion, draw_per_class
from botvision.tasks.classification.evaluation import classify
from botvision.tasks.classification.metrics import measure

_BATCH_SIZE = 64


def evaluate_classifier(
    predictor: ClassPredictor,
    folder: str | Path | None,
    *,
    weights: str | Path,
    split: str = "val",
    batch_size: int | None = None,
    num_workers: int | None = None,
    tta: bool = False,
    skip_bad: bool = False,
    output: Path | None = None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Metrics of a classifier, in the precision it was trained in.

    Args:
        predictor: See ``load``.
        folder: See ``find_split``; the one it was trained on if None.
        weights: Where the predictor comes from, for errors.
        split: Split of the folder.
        batch_size: Images at a time; those of an evaluation in the training if None.
        num_workers: Processes that read images; those of the training if None.
        tta: Average the probabilities of an image and its mirror image.
        skip_bad: Leave out images that cannot be read, and count them.
        output: Folder for ``confusion_matrix.png``, ``calibration.png`` and ``per_class.png``;
            made if need be. None: no images.
        progress: Called with the images done and their total.

    Returns:
        See ``measure``; with ``images``, those that were evaluated, and ``skipped``.

    Raises:
        BotvisionError: If the data cannot be used or has other classes than the weights.
    """
    recipe = predictor.description.get("recipe", {})
    training = recipe.get("training", {})
    source = folder or recipe.get("data", {}).get("folder")
    if source is None:
        raise BotvisionError(f"{weights}: does not say what it was trained on; give --data FOLDER")
    data = ClassImages(
        str(source),
        split,
        classes=predictor.classes,
        origin=str(weights),
        skip_bad=skip_bad,
    )
    data.transform = predictor.transform
    predictions = classify(
        predictor.model,
        data,
        precision=predictor.precision,
        batch_size=batch_size
        or training.get("micro_batch_size")
        or training.get("batch_size", _BATCH_SIZE),
        num_workers=training.get("num_workers", 0) if num_workers is None else num_workers,
        tta=tta,
        progress=progress,
    )
    metrics = measure(predictions, predictor.classes)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        draw_confusion(predictions, predictor.classes, output / "confusion_matrix.png")
        draw_calibration(predictions, output / "calibration.png")
        draw_per_class(metrics["per_class"], output / "per_class.png")
    return {**metrics, "images": len(data), "skipped": len(data.skipped)}
