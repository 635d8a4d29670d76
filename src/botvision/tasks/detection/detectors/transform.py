"""Resizing and normalization of a detector's images, and detections of the original images."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from botvision.tasks.detection.detectors.masks import paste_masks

_PASTED = ContextVar("pasted", default=True)


@contextmanager
def unpasted_masks() -> Iterator[None]:
    """Let detectors return masks inside their boxes, [n, 1, 28, 28], in this thread."""
    token = _PASTED.set(False)
    try:
        yield
    finally:
        _PASTED.reset(token)


class DetectorTransform(GeneralizedRCNNTransform):
    """torchvision's transform in less memory, with masks pasted by ``paste_masks``."""

    def normalize(self, image: Tensor) -> Tensor:
        """Return a float image [3, H, W] less the mean, divided by the standard deviation."""
        mean, std = (
            torch.as_tensor(values, dtype=image.dtype, device=image.device)[:, None, None]
            for values in (self.image_mean, self.image_std)
        )
        # In place: of a photograph of 24 megapixels each copy takes 275 MiB.
        return (image - mean).div_(std)

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Turn detections of the resized images into detections of the original ones."""
        if self.training:
            return result
        for detections, resized, original in zip(
            result, image_shapes, original_image_sizes, strict=True
        ):
            boxes = resize_boxes(detections["boxes"], resized, original)
            detections["boxes"] = boxes
            if "masks" in detections and _PASTED.get():
                detections["masks"] = paste_masks(detections["masks"], boxes, original)
        return result
