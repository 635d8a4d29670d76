"""Putting predicted masks back into the image, exactly."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks of boxes as masks of the image, the inverse of how their targets were cut out.

    torchvision cuts mask targets with ``roi_align(aligned=False)``, which takes pixel index j for
    the place j, but pastes predictions into boxes rounded to whole pixels and a pixel larger.
    On small objects this alone spoils perfect masks (the tests show it); here they are sampled at
    the places where the targets were taken.

    Args:
        masks: Probabilities inside the boxes, float [n, 1, M, M].
        boxes: [n, 4], x1 y1 x2 y2 in pixels.
        size: (H, W) of the image.

    Returns:
        Float [n, 1, H, W], zero outside the boxes.
    """
    boxes = boxes.to(masks.dtype)
    places = []
    for axis, length in enumerate(reversed(size)):  # x, then y
        first, last = boxes[:, axis, None], boxes[:, axis + 2, None]
        pixels = torch.arange(length, dtype=boxes.dtype, device=boxes.device)
        places.append((pixels - first) / (last - first).clamp(min=1e-6) * 2 - 1)
    x, y = places
    height, width = size
    grid = torch.stack(
        (x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), dim=-1
    )
    return F.grid_sample(masks, grid, align_corners=False)


class ExactMaskTransform(GeneralizedRCNNTransform):
    """torchvision's resizing and normalization, with masks pasted by ``paste_masks``."""

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Detections of the resized images as detections of the original ones."""
        if self.training:
            return result
        for detections, resized, original in zip(
            result, image_shapes, original_image_sizes, strict=True
        ):
            detections["boxes"] = resize_boxes(detections["boxes"], resized, original)
            detections["masks"] = paste_masks(detections["masks"], detections["boxes"], original)
        return result
