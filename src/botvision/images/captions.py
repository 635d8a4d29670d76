"""Captions: text in any script on an image, of a size that can be read."""

import functools
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

# Latin, Cyrillic, Greek, Arabic, Hebrew and more; it comes with matplotlib.
_FONT = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
_NO_LETTERS = ("lastresort", "blank")  # fonts that have a glyph for everything, and none of use
_SMALLEST_TEXT = 14  # pixels
_LONGEST = 60  # characters


def text_size(size: tuple[int, int]) -> int:
    """Return the height in pixels of text on an image of a width and height.

    It can be read where the image is shown 640 pixels wide, unless the image is a strip.
    """
    return max(_SMALLEST_TEXT, min(round(max(size) / 45), min(size) // 8))


def caption_font(text: str, size: int = _SMALLEST_TEXT) -> ImageFont.FreeTypeFont:
    """Return a font of a size in pixels that has the letters of a text, see ``readable``."""
    return _font(_file_with(_letters(text)) or _FONT, size)


def readable(text: str, *, installed_fonts: bool = True) -> str:
    """Return a text as one line in which every letter can be drawn.

    Letters that no font has become code points, such as "U+9CE5": two names stay two names.

    Args:
        text: Any text.
        installed_fonts: Whether ``caption_font`` draws it, which finds the system's fonts; else
            matplotlib's own font does.
    """
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(shown.split())
    if installed_fonts and _file_with(_letters(line)) is not None:
        return line
    known = _glyphs(_FONT)
    words = (letter if ord(letter) in known else f" U+{ord(letter):04X} " for letter in line)
    return " ".join("".join(words).split())


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Return a text whose middle is cut out where it is too long.

    Args:
        text: One line; its end, often a score, is kept.
        font: Font that it is drawn in.
        width: Room in pixels.
    """
    if len(text) <= _LONGEST and font.getlength(text) <= width:
        return text
    for kept in range(min(len(text) - 1, _LONGEST), 0, -1):
        cut = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(cut) <= width:
            return cut
    return "…"


def draw_caption(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, color: tuple[int, int, int]
) -> None:
    """Draw black text on a color above a point, or as near to it as the image has room.

    Args:
        draw: The image.
        x: Left edge of the text in pixels.
        y: Lower edge of the text in pixels.
        text: The caption; cut where it is too long for the image.
        color: RGB color behind it.
    """
    width, height = draw.im.size
    shown = readable(text)
    font = caption_font(shown, text_size((width, height)))
    shown = fitted(shown, font, width - 3)
    _, _, right, bottom = draw.textbbox((0, 0), shown, font=font)
    x = max(0, min(x, width - 2 - right))
    y = max(0, min(y - bottom, height - 2 - bottom))
    _, top, right, bottom = draw.textbbox((x, y), shown, font=font)
    draw.rectangle((x - 1, top - 1, right + 1, bottom + 1), fill=color)
    draw.text((x, y), shown, fill=(0, 0, 0), font=font)


def _letters(text: str) -> frozenset[int]:
    return frozenset(map(ord, text)) - {ord(" ")}


@functools.lru_cache(maxsize=64)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@functools.lru_cache(maxsize=4096)
def _file_with(letters: frozenset[int]) -> str | None:
    """Return a font file that has all letters: ours, else the first of the system's."""
    if letters <= _glyphs(_FONT):
        return _FONT
    installed = sorted({entry.fname for entry in font_manager.fontManager.ttflist})
    for file in installed:
        if any(word in Path(file).name.lower() for word in _NO_LETTERS):
            continue
        if letters <= _glyphs(file):
            return file
    return None


@functools.lru_cache(maxsize=1024)
def _glyphs(file: str) -> frozenset[int]:
    """Return the code points that a font has; none if it cannot be used."""
    try:
        ImageFont.truetype(file, _SMALLEST_TEXT)
        return frozenset(FT2Font(file).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
