"""Detections drawn on their image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from botvision.images.draw import draw_instances

if TYPE_CHECKING:
    from supervision import Detections


def draw_detections(
    image: Tensor, detections: "Detections", names: Sequence[str], *, max_side: int | None = None
) -> Image.Image:
    """Draw one image's detections.

    Args:
        image: [3, H, W], uint8 or float in 0..1.
        detections: See ``detect``.
        names: Classes in label order.
        max_side: Longest side drawn, see ``draw_instances``.

    Returns:
        An RGB image.
    """
    class_ids, confidence = detections.class_id, detections.confidence
    assert class_ids is not None
    assert confidence is not None
    captions = [
        f"{names[class_id]} {score:.2f}"
        for class_id, score in zip(class_ids.tolist(), confidence.tolist(), strict=True)
    ]
    labels = (class_ids + 1).tolist()
    return draw_instances(
        image, detections.xyxy, labels, captions, detections.mask, max_side=max_side
    )
