"""Checks of training targets: what would be learned wrongly, or fail far from its cause."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_targets(
    images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], num_classes: int | None
) -> None:
    """Check the boxes and labels of a training batch.

    Args:
        images: Images [3, H, W].
        targets: For each image ``boxes`` [n, 4], x1 y1 x2 y2 in pixels, and ``labels`` [n].
        num_classes: Number of classes including the background, label 0; None: not known.

    Raises:
        ValueError: If a box is not finite, has no area or lies outside its image, or a label is
            not that of a class.
    """
    if len(targets) != len(images):
        raise ValueError(f"targets: expected {len(images)} as there are images, got {len(targets)}")
    faults = []
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        boxes, labels = target["boxes"], target["labels"]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            raise ValueError(
                f"targets[{index}]: expected boxes [n, 4] and labels [n], got "
                f"{tuple(boxes.shape)} and {tuple(labels.shape)}"
            )
        faults.append(_are_wrong(boxes, labels, image.shape[-2:], num_classes))
    if not faults or not bool(torch.cat(faults).any()):  # one transfer from the GPU
        return
    index, row = next((i, int(wrong.nonzero()[0])) for i, wrong in enumerate(faults) if wrong.any())
    box, label = targets[index]["boxes"][row].tolist(), int(targets[index]["labels"][row])
    height, width = images[index].shape[-2:]
    most = "" if num_classes is None else f" to {num_classes - 1}"
    raise ValueError(
        f"targets[{index}]: expected finite boxes x1 < x2, y1 < y2 that reach into the image of "
        f"{height} x {width}, and labels 1{most}, got box {box} with label {label} at {row}"
    )


def _are_wrong(
    boxes: Tensor, labels: Tensor, size: Sequence[int], num_classes: int | None
) -> Tensor:
    """Return which targets are wrong, bool [n]."""
    left, top, right, bottom = boxes.unbind(1)
    # Comparisons with NaN are false.
    sound = (left < right) & (top < bottom) & boxes.isfinite().all(1)
    sound &= (left < size[1]) & (top < size[0]) & (right > 0) & (bottom > 0) & (labels > 0)
    return ~sound if num_classes is None else ~(sound & (labels < num_classes))
