"""What people hand a predictor."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from botvision.images.decode import read_image

ImageInput = str | Path | Image.Image | NDArray[np.uint8]


def as_image(photo: ImageInput) -> Image.Image:
    """An image as RGB.

    Args:
        photo: Path, PIL image, or RGB array uint8 [H, W, 3].

    Raises:
        BotvisionError: If a file cannot be read.
        ValueError: If an array is not as it should be.
    """
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise ValueError(
                f"image: expected RGB uint8 [H, W, 3], got {photo.dtype} {photo.shape}"
            )
        # A copy, for arrays may be read-only (Pillow's) or reversed (OpenCV's BGR turned round).
        return Image.fromarray(photo.copy())
    image = photo if isinstance(photo, Image.Image) else read_image(Path(photo))
    return image.convert("RGB")
