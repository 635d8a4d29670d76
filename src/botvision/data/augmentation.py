"""Scale jitter and flip at a fixed input size, on torchvision's transforms v2."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


class _ScaleJitter(v2.ScaleJitter):
    """torchvision's, which rounds the short side of a very long image down to nothing."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = super().make_params(flat_inputs)["size"]
        return {"size": (max(1, height), max(1, width))}


class FixedSizeCrop(v2.Transform):
    """Crop at random where the image is too large, pad at the bottom and right where too small.

    As TPU detection and detectron2 do it, so that every input is ``size`` x ``size``.

    Args:
        size: Side of the result in pixels.
        pad: False leaves the padding to the detector; the result is then at most that large.
    """

    def __init__(self, size: int, *, pad: bool = True) -> None:
        super().__init__()
        self.size = size
        self.pad = pad

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the place of the crop."""
        height, width = v2.query_size(flat_inputs)
        crop_height, crop_width = min(height, self.size), min(width, self.size)
        return {
            "top": int(torch.randint(height - crop_height + 1, ())),
            "left": int(torch.randint(width - crop_width + 1, ())),
            "height": crop_height,
            "width": crop_width,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop and pad one input."""
        cropped = F.crop(inpt, **params)
        padding = [0, 0, self.size - params["width"], self.size - params["height"]]
        return F.pad(cropped, padding) if self.pad and any(padding) else cropped


class KeepVisibleInstances(torch.nn.Module):
    """Drop instances that a crop has emptied, and make the boxes those of the masks.

    Without masks, boxes are clipped and those narrower or lower than a pixel are dropped.
    """

    def forward(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return the image as it is and the target without invisible instances."""
        if "masks" in target:
            visible = target["masks"].flatten(1).bool().any(dim=1)
            boxes = masks_to_boxes(target["masks"][visible])
            boxes[:, 2:] += 1  # masks_to_boxes gives the last pixel, boxes end after it
        else:
            clipped = F.clamp_bounding_boxes(target["boxes"])
            visible = ((clipped[:, 2:] - clipped[:, :2]) >= 1).all(dim=1)
            boxes = clipped[visible]
        kept = {
            key: value[visible] if key in ("labels", "masks") else value
            for key, value in target.items()
        }
        size = image.shape[-2:]
        kept["boxes"] = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(size))
        return image, kept


def training_transform(
    size: int, *, scale: tuple[float, float] = (0.8, 1.25), flip: float = 0.5, pad: bool = True
) -> v2.Compose:
    """Augmentation of the paper's detection experiments (tables 2 to 8).

    Args:
        size: Side of the square input in pixels.
        scale: Range of the scale jitter; 1 fits the whole image into the square.
        flip: Probability of a horizontal flip.
        pad: False leaves the padding of small images to the detector.

    Returns:
        A transform of (image, target) as ``CocoInstances`` gives them to a float32 image
        [3, size, size] in 0..1 and its target; without padding the sides are at most ``size``.
    """
    return v2.Compose(
        [
            _ScaleJitter((size, size), scale_range=scale),
            FixedSizeCrop(size, pad=pad),
            v2.RandomHorizontalFlip(flip),
            KeepVisibleInstances(),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        ]
    )


def evaluation_transform() -> v2.Compose:
    """Whole images at their own size as float32 in 0..1; the detector resizes them itself."""
    return v2.Compose([v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)])
