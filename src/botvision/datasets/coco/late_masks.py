"""Masks that are drawn after the image has been scaled and cropped, at the size that is left.

Drawn at the size of a photograph, 200 masks take gigabytes, of which a network of 1024 x 1024
pixels sees a tenth.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from botvision.datasets.coco.polygons import box_polygons, instance_mask

_SCALE_X, _SCALE_Y, _LEFT, _TOP, _HEIGHT, _WIDTH = range(6)


class LateMasks(tv_tensors.TVTensor):
    """Annotations of an image, and how its pixels have been moved so far.

    Scaling, cropping and flipping of torchvision's transforms v2 apply to it; those of its other
    transforms that move pixels do not.

    The values are float64 [6]: x, y of the image are drawn at ``scale * (x, y) + offset`` of a
    canvas: the two scales, the two offsets, the canvas's height and width.

    Attributes:
        annotations: COCO records.
        image_size: Height and width of the image that they describe.
    """

    annotations: Sequence[dict[str, Any]]
    image_size: tuple[int, int]

    @classmethod
    def of(cls, annotations: Sequence[dict[str, Any]], height: int, width: int) -> "LateMasks":
        """Return the masks of annotations on an image that has not been moved."""
        return _moved(torch.tensor([1, 1, 0, 0, height, width]), annotations, (height, width))

    def draw(self) -> tv_tensors.Mask:
        """Return the masks on the canvas, uint8 [n, height, width]."""
        height, width = (int(self.values[side]) for side in (_HEIGHT, _WIDTH))
        masks = np.zeros((len(self.annotations), height, width), np.uint8)
        for mask, annotation in zip(masks, self.annotations, strict=True):
            mask[:] = self._mask(annotation, height, width)
        return tv_tensors.Mask(torch.from_numpy(masks))

    @property
    def values(self) -> list[float]:
        """The two scales, the two offsets, and the canvas's height and width."""
        values: list[float] = self.as_subclass(Tensor).tolist()
        return values

    def _mask(self, annotation: dict[str, Any], height: int, width: int) -> Any:
        scale_x, scale_y, left, top = self.values[:4]
        segmentation = annotation.get("segmentation") or box_polygons(annotation["bbox"])
        if isinstance(segmentation, dict):
            whole = instance_mask(annotation, *self.image_size)
            rows = (np.arange(height) + 0.5 - top) / scale_y
            columns = (np.arange(width) + 0.5 - left) / scale_x
            indices = (
                np.floor(values).astype(int).clip(0, side - 1)
                for values, side in zip((rows, columns), whole.shape, strict=True)
            )
            return whole[np.ix_(*indices)]
        polygons = []
        for polygon in segmentation:
            points = np.asarray(polygon, np.float64).reshape(-1, 2)
            moved = points * (scale_x, scale_y) + (left, top)
            polygons.append(moved.ravel().tolist())
        return instance_mask({"segmentation": polygons}, height, width)


def _moved(
    values: Tensor, annotations: Sequence[dict[str, Any]], image_size: tuple[int, int]
) -> LateMasks:
    masks = values.double().as_subclass(LateMasks)
    masks.annotations, masks.image_size = annotations, image_size
    return masks


def _again(masks: LateMasks, values: list[float]) -> LateMasks:
    return _moved(torch.tensor(values, dtype=torch.float64), masks.annotations, masks.image_size)


@F.register_kernel(F.resize, LateMasks)
def _resize(masks: LateMasks, size: list[int], *_: Any, **__: Any) -> LateMasks:
    height, width = size
    values = masks.values
    for factor, places in (
        (width / values[_WIDTH], (_SCALE_X, _LEFT)),
        (height / values[_HEIGHT], (_SCALE_Y, _TOP)),
    ):
        for place in places:
            values[place] *= factor
    values[_HEIGHT], values[_WIDTH] = height, width
    return _again(masks, values)


@F.register_kernel(F.crop, LateMasks)
def _crop(masks: LateMasks, top: int, left: int, height: int, width: int) -> LateMasks:
    scale_x, scale_y, x, y, _, _ = masks.values
    return _again(masks, [scale_x, scale_y, x - left, y - top, height, width])


@F.register_kernel(F.horizontal_flip, LateMasks)
def _horizontal_flip(masks: LateMasks) -> LateMasks:
    scale_x, scale_y, x, y, height, width = masks.values
    return _again(masks, [-scale_x, scale_y, width - x, y, height, width])
