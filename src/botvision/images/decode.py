"""The one way images come into the program."""

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

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_MOST_PIXELS = 100_000_000
_LIMIT_VARIABLE = "BOTVISION_MOST_PIXELS"
# The first are the most usual: Pillow imports its plugins one after the other. Others have no
# place here; for EPS, Pillow would even start Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")
_TURNED = (5, 6, 7, 8)  # values of the EXIF orientation that swap width and height


def read_image(path: Path) -> Image.Image:
    """Read an image as upright RGB.

    The EXIF orientation is applied, 16-bit gray is scaled to 8 bits, transparency is dropped, of
    several frames the first is taken. The file's content, not its name, tells the format.

    Args:
        path: Image file.

    Returns:
        An RGB image, fully decoded.

    Raises:
        BotvisionError: If the file is missing, no image, truncated, of 32 bits a channel, or
            beyond 100 million pixels or what the environment's BOTVISION_MOST_PIXELS says.
    """
    return decode_image(path, str(path))


def decode_image(source: Path | BinaryIO, name: str) -> Image.Image:
    """``read_image`` of a file or of an open one, such as an archive's member.

    Args:
        source: Where the image is.
        name: What errors call it.
    """
    with _opened(source, name) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return rgb_of(image, name)


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height that ``read_image`` gives an image; of most formats without decoding it.

    Args:
        path: Image file.

    Raises:
        BotvisionError: As ``read_image``, but pixels that are not decoded may be damaged.
    """
    with _opened(path, str(path)) as image:
        if image.getexif().get(ExifTags.Base.Orientation) not in _TURNED:
            return image.size
        if image.format == "TIFF":
            image.load()  # turned by this, or by some versions of Pillow before
            return image.size
        return image.height, image.width


def read_numbers(path: Path) -> NDArray[np.uint8]:
    """The number that each pixel of a mask holds, [height, width], upright.

    Args:
        path: An image of gray values or of places in a palette, whose colors do not count.

    Raises:
        BotvisionError: As ``read_image``, or if the image has other pixels.
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
    """An image of one of the formats and not too large; what fails as it is read is one line."""
    limit = _pixel_limit()
    try:
        # Pillow warns of damaged metadata and of images below our own limit.
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
        raise BotvisionError(f"{name}: cannot be decoded ({error}); replace the file") from error


def _pixel_limit() -> int:
    """The most pixels that an image may have, of the environment or our own."""
    text = os.environ.get(_LIMIT_VARIABLE)
    if text is None:
        return _MOST_PIXELS
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise BotvisionError(f"{_LIMIT_VARIABLE}: expected a number of pixels, got {text!r}")
    # Pillow has a limit of its own, which whoever asks for more does not mean.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, int(text))
    return int(text)


def rgb_of(image: Image.Image, name: str) -> Image.Image:
    """Return an upright image as RGB of 8 bits, see ``read_image``."""
    # Pillow clips at 255 instead of scaling. Of PGM files, it scales those of more than 8 bits to
    # 16 and calls them "I".
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BotvisionError(
            f"{name}: expected 8 or 16 bits a channel, got 32, of which nothing says what is "
            "white; convert the image"
        )
    return image.convert("RGB")


def find_images(path: Path) -> Iterator[Path]:
    """The image itself, or the images of a folder and its subfolders in sorted order.

    Raises:
        BotvisionError: If the path is missing or the folder holds no images.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise BotvisionError(f"{path}: no such file or folder")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise BotvisionError(f"{path}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    yield from found
