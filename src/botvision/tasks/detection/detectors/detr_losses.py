"""DETR's losses and detections, and its boxes, which are relative to the image."""

from collections.abc import Sequence

import torch
from accelerate.utils import reduce
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image

from botvision.processes import processes

_WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
_NAMES = {"loss_ce": "loss_classifier", "loss_bbox": "loss_box_reg", "loss_giou": "loss_giou"}
_BACKGROUND_WEIGHT = 0.1


def set_losses(
    logits: Tensor, boxes: Tensor, targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Compute Transformers' losses, weighted as by Carion et al. (2020, section A.4).

    Args:
        logits: [layers, B, queries, classes], the background last.
        boxes: [layers, B, queries, 4], center x, center y, width and height as fractions of the
            image.
        targets: See ``relative_targets``.

    Returns:
        ``loss_classifier``, ``loss_box_reg`` (L1) and ``loss_giou`` of the last layer and, if there
        are more layers, ``loss_auxiliary``, the sum of the three over the others; all weighted.
    """
    from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

    matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    criterion = ImageLoss(
        matcher,
        num_classes=logits.shape[-1] - 1,
        eos_coef=_BACKGROUND_WEIGHT,
        losses=["labels", "boxes"],
    ).to(logits)
    processes()  # sets up the process group
    total = torch.tensor(float(sum(len(each["boxes"]) for each in targets)), device=logits.device)
    # The mean over the processes, as gradients are averaged; ``ImageLoss.forward`` divides it by
    # the number of processes once more.
    count = max(1.0, float(reduce(total, reduction="mean")))
    layers = []
    for scores, relative in zip(logits, boxes, strict=True):
        # NaN boxes would raise in the matching of one process; a NaN loss stops all of them.
        prediction = {"logits": scores, "pred_boxes": relative.nan_to_num(nan=0.5)}
        pairs = matcher(prediction, targets)
        found = criterion.loss_labels(prediction, targets, pairs, count)
        found |= criterion.loss_boxes(prediction, targets, pairs, count)
        found["loss_bbox"] = found["loss_bbox"] + 0 * relative.sum()
        layers.append({kind: weight * found[kind] for kind, weight in _WEIGHTS.items()})
    *others, last = layers
    losses: dict[str, Tensor] = {name: last[kind] for kind, name in _NAMES.items()}
    if others:
        values = [value for layer in others for value in layer.values()]
        losses["loss_auxiliary"] = torch.stack(values).sum()
    return losses


def relative_targets(
    targets: Sequence[dict[str, Tensor]], sizes: Sequence[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Return targets in the form of Transformers' losses.

    Args:
        targets: For each image ``boxes`` [n, 4], x1 y1 x2 y2 in pixels, and ``labels`` [n], from 1.
        sizes: (H, W) of the images, without padding.

    Returns:
        For each image ``boxes`` [n, 4], center x, center y, width and height as fractions of the
        image, and ``class_labels`` [n], from 0.
    """
    relative = []
    for target, size in zip(targets, sizes, strict=True):
        boxes = box_convert(target["boxes"], "xyxy", "cxcywh") / _extent(target["boxes"], size)
        relative.append({"boxes": boxes, "class_labels": target["labels"] - 1})
    return relative


def detections_of(
    logits: Tensor, boxes: Tensor, sizes: Sequence[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Return detections in the form of torchvision's detectors.

    Each query gives its most probable class other than the background.

    Args:
        logits: [B, queries, classes], the background last.
        boxes: [B, queries, 4], center x, center y, width and height as fractions of the image.
        sizes: (H, W) of the images that the detections are for.

    Returns:
        For each image ``boxes`` [queries, 4], x1 y1 x2 y2 in pixels, inside the image, ``labels``
        [queries], from 1, and ``scores`` [queries], highest first.
    """
    scores, classes = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
    scores, order = scores.sort(dim=-1, descending=True, stable=True)
    detections = []
    for number, size in enumerate(sizes):
        own = boxes[number, order[number]]
        corners = box_convert(own, "cxcywh", "xyxy") * _extent(own, size)
        detections.append(
            {
                "boxes": clip_boxes_to_image(corners, size),
                "labels": classes[number, order[number]] + 1,
                "scores": scores[number],
            }
        )
    return detections


def _extent(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return boxes.new_tensor([width, height, width, height])
