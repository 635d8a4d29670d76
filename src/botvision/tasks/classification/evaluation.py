"""Running a classifier over a data set, on one process or many."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import fields
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn import functional as F

from botvision.datasets.folders.dataset import ClassImages, Item
from botvision.datasets.loading import evaluation_batches, load_batches
from botvision.precision import autocast
from botvision.tasks.classification.metrics import BEST_CLASSES, Predictions


def classify(
    model: nn.Module,
    data: ClassImages,
    *,
    precision: str,
    batch_size: int,
    num_workers: int,
    tta: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """A classifier's predictions for a data set, whose batches are split over the processes.

    However many processes there are, the batches are the same: so are the predictions.

    Args:
        model: Gives logits; put into evaluation mode and back.
        data: With a transform for evaluation.
        precision: "float32", or "bfloat16" for autocast.
        batch_size: Images at a time.
        num_workers: Processes that read data.
        tta: See ``class_logits``.
        progress: Called with the images done by this process and their total.

    Returns:
        The predictions for all images, the same on every process.

    Raises:
        BotvisionError: If an image cannot be read.
    """
    device = next(model.parameters()).device
    batches = evaluation_batches(len(data), batch_size)
    total, done = sum(map(len, batches)), 0
    was_training = model.training
    model.eval()
    parts: list[tuple[int, Predictions]] = []
    loaded: Any = load_batches(
        data,
        batches,
        collate=_stacked,
        num_workers=min(num_workers, len(batches)),
        pin_memory=device.type == "cuda",
    )
    with closing(loaded):  # progress may interrupt
        for images, labels, first in loaded:
            logits = class_logits(model, images.to(device, non_blocking=True), precision, tta=tta)
            parts.append((first, _predictions(logits.cpu(), labels)))
            done += len(images)
            if progress is not None:
                progress(done, total)
    model.train(was_training)
    ordered = sorted(gather_object(parts), key=lambda part: part[0])
    joined = {
        field.name: torch.cat([getattr(part, field.name) for _, part in ordered])
        for field in fields(Predictions)
    }
    return Predictions(**joined)


@torch.inference_mode()
def class_logits(model: nn.Module, images: Tensor, precision: str, *, tta: bool) -> Tensor:
    """Return the logits of a classifier in evaluation mode: float32 [B, classes].

    Args:
        model: Gives logits.
        images: [B, 3, H, W] on its device.
        precision: "float32", or "bfloat16" for autocast.
        tta: Look at the mirrored images too; softmax of what is returned is the mean of both
            probabilities.
    """
    with autocast(images.device, precision):
        logits: Tensor = model(images).float()
        if not tta:
            return logits
        mirrored = model(images.flip(-1)).float()
    return torch.logaddexp(logits.log_softmax(dim=1), mirrored.log_softmax(dim=1))


def _stacked(items: Sequence[Item]) -> tuple[Tensor, Tensor, int]:
    images, labels, keys = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(labels), keys[0][1]


def _predictions(logits: Tensor, labels: Tensor) -> Predictions:
    best = logits.softmax(dim=1).topk(min(BEST_CLASSES, logits.shape[1]))
    losses = F.cross_entropy(logits.double(), labels, reduction="none")
    return Predictions(labels, losses, best.indices, best.values)
