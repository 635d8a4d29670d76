"""Evaluation of a weights file on a data folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from botvision.errors import BotvisionError
from botvision.predict.loading import load
from botvision.processes import one_line_out_of_memory
from botvision.tasks.predictor import Predictor
from botvision.tasks.task import EvaluationOptions, ProgressCallback, find_task


def evaluate(
    weights: str | Path | Predictor[Any],
    data: str | Path | None = None,
    *,
    split: str | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    tta: bool = False,
    skip_bad: bool = False,
    max_detections: int | None = None,
    output: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: ProgressCallback | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a weights file, in the precision it was trained in.

    Args:
        weights: See ``load``; or a loaded predictor.
        data: Data folder or its address; None: the one it was trained on.
        split: Split of the data; None: the one that the training evaluated.
        batch_size: Images per batch; None: the training's, which reproduces its metrics.
        image_size: Side in pixels of the square that images are fitted into or cropped to; None:
            as in the training.
        tta: Whether to average over horizontally flipped images (classifiers).
        skip_bad: Whether to leave out images that cannot be read, and count them; a run that was
            trained so is evaluated so.
        max_detections: Most objects found in an image (Mask and Faster R-CNN); None: as in the
            training. COCO's AP counts the first 100 of each class in an image.
        output: Folder for figures (classifiers); None: no figures.
        device: See ``load``.
        progress: Called with the number of images done and their total.
        note: Called with lines that are worth reading once, such as in how many images the most
            objects were found, so that there may be more.

    Returns:
        Metrics by name.

    Raises:
        BotvisionError: If the weights or the data cannot be used, their classes differ, or an
            option does not apply.
        OutOfMemoryError: If memory does not suffice.
    """
    predictor = weights
    if not isinstance(predictor, Predictor):
        predictor = load(predictor, device, image_size=image_size)
    trained = predictor.description.recipe_group("data")
    source = data or trained.get("folder")
    if source is None:
        raise BotvisionError("data: expected a data folder, for the weights name none")
    options = EvaluationOptions(
        split=split or trained.get("val_split", "val"),
        batch_size=batch_size,
        tta=tta,
        skip_bad=skip_bad or bool(trained.get("skip_bad", False)),
        output=None if output is None else Path(output),
        note=note,
    )
    task = find_task(predictor.description.task)
    remedy = "free some memory, or take a smaller batch_size or image_size"
    with (
        one_line_out_of_memory(f"{source}: evaluating", remedy),
        predictor.limited_to(max_detections),
    ):
        return task.evaluate(predictor, source, options, progress)
