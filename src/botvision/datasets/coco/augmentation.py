"""Scale jitter and flip at a fixed input size, on torchvision's transforms v2."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from botvision.datasets.coco.late_masks import LateMasks


class _ScaleJitter(v2.ScaleJitter):
    """torchvision's scale jitter, whose short side of a very long image can get to 0."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = super().make_params(flat_inputs)["size"]
        return {"size": (max(1, height), max(1, width))}


class RandomCrop(v2.Transform):
    """Crop at random where the image is larger than a square; smaller sides stay.

    Args:
        size: Side of the square in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the position of the crop."""
        height, width = v2.query_size(flat_inputs)
        crop_height, crop_width = min(height, self.size), min(width, self.size)
        return {
            "top": int(torch.randint(height - crop_height + 1, ())),
            "left": int(torch.randint(width - crop_width + 1, ())),
            "height": crop_height,
            "width": crop_width,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop one input."""
        return F.crop(inpt, **params)


class PadToSquare(v2.Transform):
    """Pad at the bottom and right, as TPU detection and detectron2 do it.

    Args:
        size: Side of the square in pixels.
        fill: Color of the image's padding; masks are padded with 0.
    """

    def __init__(self, size: int, *, fill: Sequence[float]) -> None:
        super().__init__()
        self.size = size
        self.fill = list(fill)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return the padding that completes the square."""
        height, width = v2.query_size(flat_inputs)
        return {"padding": [0, 0, self.size - width, self.size - height]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pad one input."""
        if not any(params["padding"]):
            return inpt
        return F.pad(inpt, **params, fill=self.fill if isinstance(inpt, tv_tensors.Image) else 0)


class KeepVisibleInstances(torch.nn.Module):
    """Drop instances that a crop has emptied, and replace boxes by those of the masks.

    Late masks are drawn. Without masks, boxes are clipped and those narrower or lower than a pixel
    are dropped.
    """

    def forward(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return the image as it is and the target without invisible instances."""
        if isinstance(masks := target.get("masks"), LateMasks):
            target = {**target, "masks": masks.draw()}
        if "masks" in target:
            boxes = _boxes_around(target["masks"])
            visible = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            boxes = boxes[visible]
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
        if "masks" in kept:
            kept["masks"] = tv_tensors.Mask(kept["masks"])  # which indexing made a plain tensor
        return image, kept


def _boxes_around(masks: Tensor) -> Tensor:
    """Return boxes x1 y1 x2 y2 of masks, float32 [n, 4], 0 for empty masks.

    The ends are one pixel behind those of torchvision's ``masks_to_boxes``. Projections of the
    masks on the two axes take a hundredth of its time at 1024 x 1024.
    """
    # argmax takes the first of equals, but no bool.
    shadows = [masks.amax(side).bool().byte() for side in (1, 2)]
    starts = [shadow.argmax(1) for shadow in shadows]
    ends = [shadow.shape[1] - shadow.flip(1).argmax(1) for shadow in shadows]
    boxes = torch.stack([*starts, *ends], dim=1).float()
    boxes[~shadows[0].bool().any(1)] = 0
    return boxes


class LateMaskCompose(v2.Compose):
    """Transforms of which all that move pixels move ``LateMasks``, too, and one draws them."""


def training_transform(
    size: int,
    *,
    scale: tuple[float, float] = (0.8, 1.25),
    flip: float = 0.5,
    color_jitter: float = 0.0,
    padding: Sequence[float] | None = (0.0, 0.0, 0.0),
) -> v2.Compose:
    """Return the augmentation of the paper's detection experiments (tables 2 to 8).

    Args:
        size: Side of the square input in pixels.
        scale: Range of the scale jitter; 1 fits the whole image into the square.
        flip: Probability of a horizontal flip.
        color_jitter: Largest deviation from 1 of the factors of random brightness, contrast and
            saturation.
        padding: Color in 0..1 of the padding of small images: the mean that the network subtracts,
            so that padding is zero for it, as in evaluation. None leaves the padding to the
            detector.

    Returns:
        A transform from the items of ``CocoInstances`` to a float32 image [3, size, size] in 0..1
        and its target; without padding the sides are at most ``size``.
    """
    steps: list[torch.nn.Module] = [
        _ScaleJitter((size, size), scale_range=scale),
        RandomCrop(size),
        v2.RandomHorizontalFlip(flip),
    ]
    if color_jitter:
        steps.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter))
    steps += [
        KeepVisibleInstances(),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
    ]
    return LateMaskCompose(steps if padding is None else [*steps, PadToSquare(size, fill=padding)])


def evaluation_transform() -> v2.Compose:
    """Return a transform to whole float32 images in 0..1; the detector resizes them itself."""
    return v2.Compose([v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)])
