"""Instances drawn on images, and mosaics of images."""

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from botvision.files import replacing
from botvision.images.captions import draw_caption
from botvision.images.own_files import save_drawn

if TYPE_CHECKING:
    from supervision import CompactMask

_GOLDEN_RATIO = 0.618034
_OPACITY = 0.45  # of masks
_SMALLEST_SIDE = 384  # small images are enlarged so that boxes and labels can be read
LARGEST_CELL = 640
"""Longest side in pixels of an image on a sheet; it is reduced before anything is drawn on it."""


def class_color(number: int) -> tuple[int, int, int]:
    """Return the RGB color of a class; neighboring numbers get distant hues."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_instances(
    image: Tensor,
    boxes: Tensor | NDArray[np.float32],
    labels: Sequence[int],
    captions: Sequence[str],
    masks: "Tensor | NDArray[np.bool_] | CompactMask | None" = None,
    *,
    max_side: int | None = None,
) -> Image.Image:
    """Draw boxes, captions and masks on an image, enlarged if it is small.

    Lines and text grow with the image, so that they can be seen wherever the whole of it is. The
    first instance lies on top; of detections this is the one with the highest score.

    Args:
        image: [3, H, W], uint8 or float in 0..1.
        boxes: [n, 4], x1 y1 x2 y2 in pixels.
        labels: Class of each instance; chooses its color.
        captions: Text of each instance.
        masks: Binary [n, H, W] or None.
        max_side: Longest side drawn; larger images are reduced first. None draws them as they are.

    Returns:
        An RGB image.
    """
    height, width = image.shape[-2:]
    canvas = _canvas(image, max_side)
    colors = [class_color(label) for label in reversed(labels)]
    if masks is not None and colors:
        _tint(canvas, masks, colors, (height, width))
    drawn = Image.fromarray(np.ascontiguousarray(canvas.transpose(1, 2, 0)))
    draw = ImageDraw.Draw(drawn)
    scale = np.array([drawn.width / width, drawn.height / height] * 2, np.float32)
    scaled = torch.as_tensor(boxes).detach().cpu().float().numpy()[::-1] * scale
    scaled[:, 2:] = np.maximum(scaled[:, 2:], scaled[:, :2])
    width = _line_width(drawn.size)
    for box, color in zip(scaled.astype(int).tolist(), colors, strict=True):
        draw.rectangle(box, outline=color, width=width)
    for (x, y, *_), caption, color in zip(scaled.tolist(), reversed(captions), colors, strict=True):
        draw_caption(draw, x, y, caption, color)
    return drawn


def _canvas(image: Tensor, max_side: int | None) -> NDArray[np.uint8]:
    """Return an image as uint8 [3, height, width] in the size in which it is drawn."""
    image = image.detach().cpu().as_subclass(Tensor)
    height, width = image.shape[-2:]
    longest = max(height, width)
    if max_side is not None and longest > max_side:
        # First, as anything else would copy the whole image.
        size = [max(1, round(side * max_side / longest)) for side in (height, width)]
        image = F.resize(image, size)
    canvas = F.to_dtype(image, torch.uint8, scale=True)
    factor = round(_SMALLEST_SIDE / longest)
    if factor > 1:
        canvas = F.resize(canvas, [height * factor, width * factor], antialias=False)
    return canvas.numpy().copy()  # it is drawn on


def _tint(
    canvas: NDArray[np.uint8],
    masks: "Tensor | NDArray[np.bool_] | CompactMask",
    colors: Sequence[tuple[int, int, int]],
    size: tuple[int, int],
) -> None:
    """Blend masks of a height and width into a canvas, the last one first, each in its window."""
    # The row and column of the masks that each row and column of the canvas shows.
    rows, columns = (
        np.arange(shown) * whole // shown
        for shown, whole in zip(canvas.shape[1:], size, strict=True)
    )
    blended = canvas.astype(np.float32)  # rounded once, however many masks share a pixel
    for index, color in zip(reversed(range(len(masks))), colors, strict=True):
        mask, left, top = mask_window(masks, index)
        first, last = np.searchsorted(rows, (top, top + mask.shape[0]))
        begin, end = np.searchsorted(columns, (left, left + mask.shape[1]))
        shown = mask
        if shown.shape != (last - first, end - begin):
            shown = mask[rows[first:last, None] - top, columns[begin:end] - left]
        for channel, value in zip(blended[:, first:last, begin:end], color, strict=True):
            tint = value - channel
            tint *= _OPACITY
            tint *= shown
            channel += tint
    canvas[:] = np.rint(blended, out=blended)


def mask_window(
    masks: "Tensor | NDArray[np.bool_] | CompactMask", index: int
) -> tuple[NDArray[np.bool_], int, int]:
    """Return a mask, bool [h, w], and the column and row of its window in the image.

    Args:
        masks: [n, H, W]; the window of a compact one is that of its box, else the whole image.
        index: Index of the mask.
    """
    if isinstance(masks, Tensor | np.ndarray):
        return torch.as_tensor(masks[index]).cpu().bool().numpy(), 0, 0
    left, top = masks.offsets[index].tolist()
    return masks.crop(index), left, top


def _line_width(size: tuple[int, int]) -> int:
    return max(2, min(round(max(size) / 320), min(size) // 40))


def mosaic(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Arrange images in rows, each in a cell of the largest size.

    Args:
        images: At least one.
        columns: Images per row; None gives about as many columns as rows.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    width = max(image.width for image in images)
    height = max(image.height for image in images)
    rows = math.ceil(len(images) / columns)
    gap = 4
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        sheet.paste(image, (column * (width + gap), row * (height + gap)))
    return sheet


def save_evaluation(image: Image.Image, folder: Path, epoch: int) -> None:
    """Write an evaluation's mosaic as ``val_epoch<epoch>.jpg`` and ``val_predictions.jpg``."""
    for name in (f"val_epoch{epoch:03d}.jpg", "val_predictions.jpg"):
        with replacing(folder / name) as temporary:
            save_drawn(image, temporary)
