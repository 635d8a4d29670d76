"""Figures as files, and names of the user's in them."""

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from botvision.files import replacing


def save_figure(figure: Figure, path: Path, *, dpi: int = 100) -> None:
    """Write a figure as an image, all or nothing.

    Args:
        figure: What to draw.
        path: PNG to write or replace.
        dpi: Pixels an inch.
    """
    with replacing(path) as temporary, warnings.catch_warnings():
        # A name in letters that the font lacks shows as boxes; that is no reason to fill a log.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, dpi=dpi)


def plain_text(name: str, *, longest: int = 28) -> str:
    """A name for a figure, its end cut off; none of it is taken for a formula or a mark."""
    cut = name if len(name) <= longest else name[: longest - 3] + "..."
    shown = " ".join(cut.split()).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
