"""Copy-paste augmentation (Ghiasi et al. 2020, arXiv:2012.07177)."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from botvision.datasets.coco.augmentation import KeepVisibleInstances

Item = tuple[Tensor, dict[str, Any]]

_KEEP_VISIBLE = KeepVisibleInstances()


def random_subset(count: int) -> Tensor:
    """Draw which of some instances to paste, at least one: bool [count]."""
    size = int(torch.randint(1, count + 1, ()))
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count)[:size]] = True
    return chosen


def paste_instances(onto: Item, source: Item, chosen: Tensor) -> Item:
    """Paste instances of one image onto another, at their own positions.

    Pixels are replaced without blending, which the paper found to make no difference. Pasted
    instances hide the others: masks lose those pixels, boxes become those of the masks, and
    instances without visible pixels are dropped. Images of different sizes are aligned at their
    upper left corners, and pasted pixels outside ``onto`` are cut off.

    Args:
        onto: Image [3, H, W] and target with ``boxes``, ``labels``, ``masks`` and other fields,
            which are kept.
        source: Image of the same dtype and any size, and its target. Crowds are not in targets,
            and so are never pasted.
        chosen: Whether to paste each instance of the source, bool [n].

    Returns:
        A new image and a new target: the visible instances of ``onto`` in order, then the pasted
        ones in order.
    """
    image, target = onto
    pasted_image, pasted_target = source
    height, width = image.shape[-2:]
    pasted = _fitted(pasted_target["masks"][chosen], height, width)
    covered = pasted.bool().any(dim=0)
    mixed = torch.where(covered, _fitted(pasted_image, height, width), image)
    masks = torch.cat([target["masks"] * ~covered, pasted])
    return _KEEP_VISIBLE(
        tv_tensors.Image(mixed),
        {
            **target,
            "labels": torch.cat([target["labels"], pasted_target["labels"][chosen]]),
            "masks": masks,
        },
    )


def _fitted(planes: Tensor, height: int, width: int) -> Tensor:
    """Crop planes [..., H, W], or pad them with 0, at the bottom and right."""
    planes = planes.as_subclass(Tensor)[..., :height, :width]
    missing = [0, 0, width - planes.shape[-1], height - planes.shape[-2]]
    return F.pad(planes, missing) if any(missing) else planes
