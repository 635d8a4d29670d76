"""Accepted predictor inputs: paths, PIL images, arrays and tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from botvision.errors import BotvisionError
from botvision.images.decode import FREE_MEMORY, read_image, rgb_of
from botvision.processes import one_line_out_of_memory

ImageInput = str | Path | Image.Image | NDArray[np.generic] | Tensor
"""An image as users have it, see ``to_rgb``."""

_CHANNELS = (1, 3)


def to_rgb(image: ImageInput) -> Image.Image:
    """Return an image as upright RGB.

    A file and the PIL image opened from it give the same pixels: the EXIF orientation is applied,
    and 16-bit gray is scaled to 8 bits.

    Args:
        image: Path; PIL image; array [H, W], [H, W, 1] or [H, W, 3] (RGB); or tensor [1, H, W] or
            [3, H, W]. Arrays and tensors are uint8, uint16 or float in 0..1.

    Raises:
        BotvisionError: If an image cannot be decoded, or has 32 bits per channel.
        TypeError: If the image is of another type.
        ValueError: If its shape, dtype or range is another one.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        try:
            with one_line_out_of_memory("image: decoding the image", FREE_MEMORY):
                # The user's image stays as it is.
                return rgb_of(ImageOps.exif_transpose(image), "image", image.format)
        except OSError as error:  # Pillow decodes what it opened when it is first needed
            raise BotvisionError(f"image: cannot be decoded ({error}); replace the file") from error
    if isinstance(image, Tensor):
        shape = tuple(image.shape)
        if len(shape) != 3 or shape[0] not in _CHANNELS:
            raise ValueError(f"image: expected a tensor [1 or 3, H, W], got {shape}")
        if image.dtype == torch.bfloat16:
            image = image.float()
        return _from_array(image.detach().cpu().permute(1, 2, 0).numpy(), shape)
    if isinstance(image, np.ndarray):
        shape = image.shape
        if len(shape) == 2:
            image = image[:, :, None]
        if image.ndim != 3 or image.shape[2] not in _CHANNELS:
            raise ValueError(
                f"image: expected an array [H, W], [H, W, 1] or [H, W, 3], got {shape}"
            )
        return _from_array(image, shape)
    raise TypeError(
        "image: expected a path, a PIL image, an array or a tensor, got "
        f"{type(image).__module__}.{type(image).__qualname__}"
    )


def _from_array(array: NDArray[Any], shape: tuple[int, ...]) -> Image.Image:
    """Return an array [H, W, 1 or 3] as RGB."""
    if 0 in array.shape:
        raise ValueError(f"image: expected at least one pixel, got {shape}")
    if array.dtype == np.uint8:
        pixels = array
    elif array.dtype == np.uint16:
        pixels = (array / 257).round()
    elif np.issubdtype(array.dtype, np.floating):
        least, most = float(array.min()), float(array.max())
        if not (least >= 0 and most <= 1):  # NaN fails as well
            raise ValueError(f"image: expected float values in 0..1, got {least:g} to {most:g}")
        pixels = (array * 255).round()
    else:
        raise ValueError(f"image: expected uint8, uint16 or float values, got {array.dtype}")
    # Contiguous and writable, unlike reversed (OpenCV's BGR) or read-only (Pillow's) arrays.
    rgb = np.array(np.broadcast_to(pixels.astype(np.uint8), (*array.shape[:2], 3)))
    return Image.fromarray(rgb)
