"""What people hand a predictor."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from botvision.images.decode import read_image

Picture = str | Path | Image.Image | NDArray[np.uint8]


def as_image(picture: Picture) -> Image.Image:
    """A picture as RGB.

    Args:
        picture: Path, PIL image, or RGB array uint8 [H, W, 3].

    Raises:
        BotvisionError: If a file cannot be read.
        ValueError: If an array is not as it should be.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"picture: expected RGB uint8 [H, W, 3], got {picture.dtype} {picture.shape}"
            )
        # A copy, for arrays may be read-only (Pillow's) or reversed (OpenCV's BGR turned round).
        return Image.fromarray(picture.copy())
    image = picture if isinstance(picture, Image.Image) else read_image(Path(picture))
    return image.convert("RGB")
