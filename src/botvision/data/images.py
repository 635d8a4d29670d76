"""The one way pictures come into the program."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from botvision.errors import BotvisionError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_MOST_PIXELS = 100_000_000


def read_image(path: Path) -> Image.Image:
    """Read a picture as upright RGB.

    The EXIF orientation is applied, 16-bit grey is scaled to 8 bits, transparency is dropped.
    The file's content, not its name, tells the format.

    Args:
        path: Picture file.

    Returns:
        An RGB image, fully decoded.

    Raises:
        BotvisionError: If the file is missing, no picture, truncated, or beyond 100 million
            pixels.
    """
    try:
        # Pillow warns of damaged metadata and of pictures below our own limit.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise BotvisionError(
                    f"{path}: expected at most {_MOST_PIXELS:,} pixels, got "
                    f"{image.width} x {image.height}; shrink the picture"
                )
            return _rgb(ImageOps.exif_transpose(image))
    except BotvisionError:
        raise
    except FileNotFoundError as error:
        raise BotvisionError(f"{path}: no such picture") from error
    except Image.DecompressionBombError as error:
        raise BotvisionError(f"{path}: too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise BotvisionError(f"{path}: expected a picture, got a file of another kind") from error
    except Exception as error:  # decoders of damaged files raise anything, struct.error included
        raise BotvisionError(f"{path}: cannot be decoded ({error}); replace the file") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow clips at 255 instead of scaling.
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def find_images(path: Path) -> Iterator[Path]:
    """The picture itself, or the pictures of a folder and its subfolders in sorted order.

    Raises:
        BotvisionError: If the path is missing or the folder holds no pictures.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise BotvisionError(f"{path}: no such file or folder")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise BotvisionError(f"{path}: holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})")
    yield from found
