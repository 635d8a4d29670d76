"""Running a detector over a data set, on one process or many, and measuring it."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.loading import evaluation_batches, load_batches
from botvision.errors import BotvisionError
from botvision.precision import autocast
from botvision.tasks.detection.metrics import CocoMetrics, coco_results


def evaluate_detector(
    model: nn.Module,
    data: CocoInstances,
    *,
    precision: str,
    batch_size: int,
    masks: bool,
    num_workers: int = 0,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, Any], CocoMetrics]:
    """COCO metrics of a detector on a data set, whose images are split over the processes.

    Args:
        model: A torchvision detector; put into evaluation mode and back.
        data: Images as float tensors, see ``evaluation_transform``.
        precision: "float32", or "bfloat16" for autocast.
        batch_size: Images at a time.
        masks: Whether to evaluate masks besides boxes.
        num_workers: Processes that read the images.
        progress: Called with the images done and their total.

    Returns:
        ``CocoMetrics.evaluate``'s metrics, and the ``CocoMetrics`` with the results in COCO's
        format, the same on every process.
    """
    was_training = model.training
    model.eval()
    mine = evaluation_batches(len(data), batch_size)
    results: list[dict[str, Any]] = []
    total, done = sum(map(len, mine)), 0
    with closing(load_batches(data, mine, collate=list, num_workers=num_workers)) as loaded:
        for chosen in loaded:
            outputs = detect(model, [image for image, _ in chosen], precision)
            for output, (_, target) in zip(outputs, chosen, strict=True):
                # Masks leave as run lengths: those of a whole data set would not fit anywhere.
                results.extend(coco_results(output, target["image_id"], data.categories))
            done += len(chosen)
            progress(done, total)  # which may interrupt
    model.train(was_training)
    metrics = CocoMetrics(data.annotations, masks=masks)
    metrics.process(gather_object(results))
    return metrics.evaluate(), metrics


def detect(model: nn.Module, images: list[Tensor], precision: str) -> list[dict[str, Tensor]]:
    """Detections of float images [3, H, W] in 0..1, on the model's device.

    Args:
        model: A torchvision detector in evaluation mode.
        images: Of any sizes.
        precision: "float32", or "bfloat16" for autocast.
    """
    device = next(model.parameters()).device
    transform: Any = model.get_submodule("transform")
    longest: int = transform.max_size
    for image in images:
        height, width = image.shape[-2:]
        if min(height, width) * longest < max(height, width):
            raise BotvisionError(
                f"image of {width} x {height}: expected a longer side of at most {longest} times "
                "the shorter one; cut the image"
            )
    inputs = [image.as_subclass(Tensor).to(device) for image in images]
    with torch.inference_mode(), autocast(device, precision):
        outputs: list[dict[str, Tensor]] = model(inputs)
    return outputs
