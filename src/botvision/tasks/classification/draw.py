"""Images with what they are and what they were taken for."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F

_SIDE = 192  # smaller images are enlarged to about this
_FONT = ImageFont.load_default(14)
_LINE = 20
BLACK, GREEN, RED = (30, 30, 30), (0, 120, 60), (190, 30, 30)
Line = tuple[str, tuple[int, int, int]]


def captioned(image: Tensor, lines: Sequence[Line], *, mean: Tensor, std: Tensor) -> Image.Image:
    """A normalized image with lines of text under it.

    Args:
        image: float32 [3, H, W].
        lines: Texts and their colors; cut where they are too long.
        mean: What the image was normalized with: [3].
        std: Likewise.
    """
    shown = (image.cpu().float() * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
    height, width = shown.shape[-2:]
    factor = max(1, round(_SIDE / max(height, width)))
    shown = F.resize(
        F.to_dtype(shown, torch.uint8, scale=True),
        [height * factor, width * factor],
        interpolation=F.InterpolationMode.NEAREST,
    )
    photo = F.to_pil_image(shown)
    sheet = Image.new("RGB", (photo.width, photo.height + _LINE * len(lines)), "white")
    sheet.paste(photo)
    draw = ImageDraw.Draw(sheet)
    for number, (text, color) in enumerate(lines):
        place = (2, photo.height + number * _LINE + 1)
        draw.text(place, _fitted(text, sheet.width - 4), fill=color, font=_FONT)
    return sheet


def _fitted(text: str, width: int) -> str:
    if _FONT.getlength(text) <= width:
        return text
    while text and _FONT.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
