"""Detectors run over images, and measured on a dataset by one process or many."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from botvision.datasets.check.images import narrow_fault
from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.loading import evaluation_batches, load_batches
from botvision.errors import BotvisionError
from botvision.images.batches import FORWARD_PIXELS, batches_within
from botvision.precision import autocast
from botvision.supervision_import import import_supervision
from botvision.tasks.detection.detectors.masks import compact_masks
from botvision.tasks.detection.detectors.rcnn import lowered_threshold
from botvision.tasks.detection.detectors.transform import unpasted_masks
from botvision.tasks.detection.metrics import CocoMetrics, coco_results

if TYPE_CHECKING:
    from supervision import Detections


def evaluate_detector(
    model: nn.Module,
    data: CocoInstances,
    *,
    precision: str,
    batch_size: int,
    masks: bool,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> tuple[dict[str, Any], CocoMetrics]:
    """Compute COCO metrics of a detector on a dataset, whose batches are split over processes.

    Args:
        model: A torchvision detector; put into evaluation mode and back.
        data: Images as float tensors, see ``evaluation_transform``.
        precision: "float32", or "bfloat16" for autocast.
        batch_size: Images per batch, of large ones fewer.
        masks: Whether to evaluate masks besides boxes.
        num_workers: Number of processes that read the images.
        progress: Called with the number of images done and the total of this process.
        note: Called with a line if the model's limit was reached, so that objects may be missing.

    Returns:
        The metrics of ``CocoMetrics.evaluate``, and the ``CocoMetrics`` with the results in COCO's
        format, the same on every process.
    """
    was_training = model.training
    model.eval()
    records = data.annotations.images
    pixels = [record["height"] * record["width"] for record in records]
    batches = evaluation_batches(len(data), batch_size, pixels)
    results: list[dict[str, Any]] = []
    total, done = sum(map(len, batches)), 0
    images_only = data.without_masks()
    with closing(load_batches(images_only, batches, collate=list, num_workers=num_workers)) as read:
        for batch in read:
            found = detect(model, [image for image, _ in batch], precision)
            for detections, (_, target) in zip(found, batch, strict=True):
                results.extend(coco_results(detections, target["image_id"], data.categories))
            done += len(batch)
            if progress is not None:
                progress(done, total)  # which may interrupt
    model.train(was_training)
    metrics = CocoMetrics(data.annotations, masks=masks)
    metrics.process(gather_object(results))
    if note is not None and (said := _cut(model, metrics.results)):
        note(said)
    return metrics.evaluate(), metrics


def max_detections(model: nn.Module) -> int:
    """Return how many objects a detector finds in an image at most."""
    detector: Any = model
    heads = getattr(detector, "roi_heads", None)
    count: int = len(detector.queries.weight) if heads is None else heads.detections_per_img
    return count


def _cut(model: nn.Module, results: list[dict[str, Any]]) -> str:
    """Return in how many images the model's limit was reached; "" if in none."""
    if not hasattr(model, "roi_heads"):
        return ""  # a DETR gives a detection per query, however many objects there are
    limit = max_detections(model)
    found = Counter(each["image_id"] for each in results)
    cut = sum(count >= limit for count in found.values())
    if not cut:
        return ""
    return (
        f"{cut} of the images have {limit} detections, the most that this model gives: there may "
        "be more; max_detections raises it"
    )


def detect(
    model: nn.Module, images: Sequence[Tensor], precision: str, *, threshold: float | None = None
) -> list["Detections"]:
    """Detect objects in images, in each as if it were alone.

    Images of one size are a batch: padding to a larger neighbor would reach the global attention
    and change what is found. Of large images few are in a batch, see ``FORWARD_PIXELS``.

    Args:
        model: A torchvision detector in evaluation mode.
        images: Tensors [3, H, W] of any sizes, uint8 or float in 0..1; moved to the model's device.
        precision: "float32", or "bfloat16" for autocast.
        threshold: Smallest score to keep, also below what the model gives by itself; None: all that
            it gives.

    Returns:
        For each image, by falling score: ``xyxy`` float32 [n, 4] in pixels of the image,
        ``confidence`` float32 [n], ``class_id`` int64 [n], the label less one, and ``mask``, a
        ``CompactMask`` [n, H, W], or None if the detector predicts boxes only.

    Raises:
        BotvisionError: If an image is too narrow to be resized.
    """
    device = next(model.parameters()).device
    transform: Any = model.get_submodule("transform")
    longest: int = transform.max_size
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    for height, width in sizes:
        if said := narrow_fault((width, height), longest):
            raise BotvisionError(said)
    outputs: list[Any] = [None] * len(images)
    with torch.inference_mode(), lowered_threshold(model, threshold):
        for size in dict.fromkeys(sizes):
            alike = [index for index, each in enumerate(sizes) if each == size]
            for batch in batches_within(
                alike, lambda index: math.prod(sizes[index]), FORWARD_PIXELS
            ):
                inputs = [_floats(images[index], device) for index in batch]
                with autocast(device, precision), unpasted_masks():
                    for index, output in zip(batch, model(inputs), strict=True):
                        outputs[index] = output
        supervision, found = import_supervision(), []
        for output, size in zip(outputs, sizes, strict=True):
            kept = output["scores"] >= (0.0 if threshold is None else threshold)
            own = {name: values[kept] for name, values in output.items()}
            masks = own.get("masks")
            found.append(
                supervision.Detections(
                    xyxy=own["boxes"].float().cpu().numpy(),
                    confidence=own["scores"].float().cpu().numpy(),
                    class_id=own["labels"].cpu().numpy() - 1,
                    mask=None if masks is None else compact_masks(masks, own["boxes"], size),
                )
            )
        return found


def _floats(image: Tensor, device: torch.device) -> Tensor:
    on_device = image.as_subclass(Tensor).to(device)
    return F.to_dtype(on_device, torch.float32, scale=True)
