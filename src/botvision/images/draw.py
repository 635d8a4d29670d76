"""Images people look at: instances drawn on images, and mosaics of them."""

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes

from botvision.files import replacing

_GOLDEN_RATIO = 0.618034
_OPACITY = 0.45  # of masks
_SMALLEST_SIDE = 384  # small images are enlarged so that boxes and labels can be read


def class_color(number: int) -> tuple[int, int, int]:
    """RGB color of a class; neighboring numbers get distant hues."""
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_instances(
    image: Tensor,
    boxes: Tensor,
    labels: Sequence[int],
    captions: Sequence[str],
    masks: Tensor | None = None,
) -> Image.Image:
    """Draw boxes, captions and masks on an image, enlarged if it is small.

    The first instance lies on top, of detections the surest.

    Args:
        image: [3, H, W], uint8 or float in 0..1.
        boxes: [n, 4], x1 y1 x2 y2 in pixels.
        labels: Class of each instance; chooses its color.
        captions: Text of each instance.
        masks: Binary [n, H, W] or None.

    Returns:
        An RGB photo.
    """
    canvas = F.to_dtype(image.detach().cpu(), torch.uint8, scale=True)
    height, width = canvas.shape[-2:]
    factor = max(1, round(_SMALLEST_SIDE / max(height, width)))
    canvas = F.resize(canvas, [height * factor, width * factor], antialias=False)
    if len(labels) == 0:
        return F.to_pil_image(canvas)
    colors = [class_color(label) for label in reversed(labels)]
    if masks is not None:
        enlarged = F.resize(
            masks.detach().cpu().to(torch.uint8),
            [height * factor, width * factor],
            interpolation=F.InterpolationMode.NEAREST,
        )
        # torchvision's draw_segmentation_masks blackens what two masks share.
        blended = canvas.float()
        for mask, color in zip(enlarged.bool().flip(0), colors, strict=True):
            blended[:, mask] += _OPACITY * (torch.tensor(color)[:, None] - blended[:, mask])
        canvas = blended.round().to(torch.uint8)
    scaled = boxes.detach().cpu().float().flip(0) * factor
    scaled[:, 2:] = torch.maximum(scaled[:, 2:], scaled[:, :2])
    canvas = draw_bounding_boxes(canvas, scaled, colors=colors, width=2)
    photo: Image.Image = F.to_pil_image(canvas)
    draw = ImageDraw.Draw(photo)
    for (x, y, *_), caption, color in zip(scaled.tolist(), reversed(captions), colors, strict=True):
        _caption(draw, x, y, caption, color)
    return photo


def _caption(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, color: tuple[int, int, int]
) -> None:
    left, top, right, bottom = draw.textbbox((x, y), text, font_size=14)
    up = min(bottom - y, y)
    draw.rectangle((left - 1, top - up - 1, right + 1, bottom - up + 1), fill=color)
    draw.text((x, y - up), text, fill=(0, 0, 0), font_size=14)


def mosaic(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Images side by side in rows, each in a cell of the largest size.

    Args:
        images: At least one.
        columns: Images a row; about as many as rows if None.
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
    """Write the image of an evaluation as ``val_epoch<epoch>.jpg`` and as the last one's."""
    for name in (f"val_epoch{epoch:03d}.jpg", "val_predictions.jpg"):
        with replacing(folder / name) as temporary:
            image.save(temporary)
