"""Image decoding: the single entry point for image files."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from botvision.errors import BotvisionError
from botvision.processes import one_line_out_of_memory, out_of_memory

_MAX_PIXELS = 100_000_000
_LIMIT_VARIABLE = "BOTVISION_MOST_PIXELS"
# The most usual come first, since Pillow imports its plugins one after the other. No others are
# accepted; for EPS, Pillow would even start Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")
FREE_MEMORY = "free some memory, read fewer images at a time or shrink the image"
"""What to do about lack of memory for an image."""
_ROTATED = (5, 6, 7, 8)  # values of the EXIF orientation that swap width and height


def read_image(path: Path) -> Image.Image:
    """Read an image as upright RGB.

    The EXIF orientation is applied, 16-bit gray is scaled to 8 bits, transparency is dropped and
    the first of several frames is taken. The content of the file, not its name, tells the format.

    Args:
        path: Path of the image file.

    Returns:
        An RGB image, fully decoded.

    Raises:
        BotvisionError: If the file is missing, not an image, truncated, has 32 bits per channel,
            or more than 100 million pixels or the environment's BOTVISION_MOST_PIXELS.
        OutOfMemoryError: If memory does not suffice to decode it.
    """
    return decode_image(path, str(path))


def decode_image(source: Path | BinaryIO, name: str) -> Image.Image:
    """Read an image as upright RGB from a path or an open file, see ``read_image``.

    Args:
        source: Path or open file of the image.
        name: Name of the image in messages.
    """
    with _opened(source, name) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return rgb_of(image, name, image.format)


def upright_size(path: Path) -> tuple[int, int]:
    """Return the width and height of an upright image, of most formats without decoding it.

    Args:
        path: Path of the image file.

    Raises:
        BotvisionError: As ``read_image``, but damaged pixels may go unnoticed.
    """
    with _opened(path, str(path)) as image:
        if image.getexif().get(ExifTags.Base.Orientation) not in _ROTATED:
            return image.size
        if image.format == "TIFF":
            image.load()  # rotates the image, if this version of Pillow has not yet
            return image.size
        return image.height, image.width


def read_numbers(path: Path) -> NDArray[np.uint8]:
    """Return the values of an upright mask image, uint8 [height, width].

    Args:
        path: Path of an image with gray values or a palette; of a palette, the indices are taken.

    Raises:
        BotvisionError: As ``read_image``, or if the image has another mode.
    """
    with _opened(path, str(path)) as image:
        if image.mode not in ("L", "P"):
            raise BotvisionError(
                f"{path}: expected a mask of gray values or with a palette, got mode {image.mode}; "
                "convert the image"
            )
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(image)


@contextlib.contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Open an image of an accepted format and size; all that fails becomes a one-line error."""
    limit = _pixel_limit()
    try:
        # Pillow warns of damaged metadata and of images below our limit.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(source, formats=_FORMATS) as image,
        ):
            if image.width * image.height > limit:
                raise BotvisionError(
                    f"{name}: expected at most {limit:,} pixels, got {image.width} x "
                    f"{image.height}; shrink the image or set {_LIMIT_VARIABLE}"
                )
            yield image
    except BotvisionError:
        raise
    except FileNotFoundError as error:
        raise BotvisionError(f"{name}: no such image") from error
    except Image.DecompressionBombError as error:
        raise BotvisionError(
            f"{name}: too many pixels ({error}); shrink the image or set {_LIMIT_VARIABLE}"
        ) from error
    except UnidentifiedImageError as error:
        raise BotvisionError(
            f"{name}: expected an image ({', '.join(_FORMATS)}), got a file of another kind"
        ) from error
    except Exception as error:  # decoders of damaged files raise anything, struct.error included
        with one_line_out_of_memory(f"{name}: decoding the image", FREE_MEMORY):
            if out_of_memory(error):
                raise
        raise BotvisionError(f"{name}: cannot be decoded ({error}); replace the file") from error


def _pixel_limit() -> int:
    """Maximum number of pixels of an image, from the environment or our default."""
    text = os.environ.get(_LIMIT_VARIABLE)
    if text is None:
        return _MAX_PIXELS
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise BotvisionError(f"{_LIMIT_VARIABLE}: expected a number of pixels, got {text!r}")
    # Pillow's own limit must not stop a user who asks for more.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, int(text))
    return int(text)


def rgb_of(image: Image.Image, name: str, file_format: str | None) -> Image.Image:
    """Return an upright image as RGB of 8 bits, see ``read_image``.

    Args:
        image: Image of any mode of Pillow's; its ``info`` may change.
        name: Name of the image in messages.
        file_format: Format of its file as Pillow names it, which copies of an image lose; None if
            there is none.
    """
    # Pillow clips at 255 instead of scaling. Of PGM files, it scales those of more than 8 bits to
    # 16 and calls them "I".
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PPM"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BotvisionError(
            f"{name}: expected 8 or 16 bits per channel, got 32 with an unknown value range; "
            "convert the image"
        )
    if image.mode == "La":  # Pillow converts it to this mode alone
        image = image.convert("LA")
    image.info.pop("transparency", None)  # Pillow warns of it, or fails, where it becomes RGB
    return image.convert("RGB")
