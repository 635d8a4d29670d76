"""Conversion between DETR's boxes, relative to the image, and boxes in pixels."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image


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
    return [
        {
            "boxes": box_convert(target["boxes"], "xyxy", "cxcywh")
            / _extent(target["boxes"], size),
            "class_labels": target["labels"] - 1,
        }
        for target, size in zip(targets, sizes, strict=True)
    ]


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
