"""Figures as files, confusion matrices, and names of the user's in figures."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from botvision.files import replacing
from botvision.images.captions import readable
from botvision.images.own_files import save_drawn

_MOST_COUNTS = 25  # classes, beyond which counts cannot be read
_MOST_NAMES = 120


def save_figure(figure: Figure, path: Path, *, dpi: int = 100) -> None:
    """Write a figure as an image, all or nothing.

    Args:
        figure: What to draw.
        path: PNG to write or replace.
        dpi: Pixels an inch.
    """
    with replacing(path) as temporary:
        _write(figure, temporary, dpi=dpi)


def save_stacked(figures: Sequence[Figure], path: Path, *, dpi: int = 100) -> None:
    """Write figures below each other as one image, all or nothing.

    Args:
        figures: What to draw, from the top; at least one.
        path: PNG to write or replace.
        dpi: Pixels an inch.
    """
    images = []
    for figure in figures:
        drawn = io.BytesIO()
        _write(figure, drawn, dpi=dpi, format="png")
        images.append(Image.open(drawn).convert("RGB"))
    size = max(image.width for image in images), sum(image.height for image in images)
    sheet, top = Image.new("RGB", size, "white"), 0
    for image in images:
        sheet.paste(image, ((sheet.width - image.width) // 2, top))
        top += image.height
    with replacing(path) as temporary:
        save_drawn(sheet, temporary)


def _write(figure: Figure, target: Path | io.BytesIO, **options: Any) -> None:
    with warnings.catch_warnings():
        # The user's matplotlib may be set to a font of fewer letters; that fills no log.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(target, **options)


def plain_text(name: str, *, longest: int = 28) -> str:
    """A name for a figure, its end cut off; none of it is taken for a formula or a mark."""
    whole = readable(name, installed_fonts=False)
    cut = whole if len(whole) <= longest else whole[: longest - 3] + "..."
    shown = " ".join(cut.split()).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def matrix_figure(matrix: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """Return a confusion matrix: counts where there is room for them, fractions as colors.

    Args:
        matrix: Counts [n, n]: rows are the truth, columns what was predicted.
        names: Names of the n classes in order; of n - 1, if the last row and column are those of
            the background.
        title: Title of the figure.

    Returns:
        A figure, whose fractions are those of the row's sum; in the row of the background, of the
        column's.
    """
    size, many = len(matrix), len(names) > _MOST_COUNTS
    side = min(4.2 + 0.38 * size, 6 + 0.16 * size, 24)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    fractions = np.ma.masked_array(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))
    labels, meaning = [*map(plain_text, names)], "fraction of the row"
    if size > len(names):
        labels, meaning = [*labels, "background"], f"{meaning}; of background, of the column"
        fractions[-1] = matrix[-1] / np.maximum(matrix.sum(axis=0), 1)
        fractions[-1, -1] = np.ma.masked  # the background is never found in the background
        # Rules set it apart: what was missed, and what was found where nothing is.
        axes.axhline(size - 1.5, color="black", linewidth=1)
        axes.axvline(size - 1.5, color="black", linewidth=1)
    colors = matplotlib.colormaps["Blues"].with_extremes(bad="lightgray")
    image = axes.imshow(fractions, cmap=colors, vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, label=meaning)
    if many:
        axes.set_xticks(np.arange(-0.5, size), minor=True)
        axes.set_yticks(np.arange(-0.5, size), minor=True)
        axes.grid(which="minor", color="lightgray", linewidth=0.3)
        axes.tick_params(which="minor", length=0)
    else:
        for row, column in np.argwhere(matrix).tolist():
            color = "white" if fractions[row, column] > 0.6 else "black"
            count = str(matrix[row, column])
            axes.text(column, row, count, ha="center", va="center", color=color)
    if len(names) <= _MOST_NAMES:
        axes.set_xticks(range(size), labels, rotation=90 if size > 4 else 0)
        axes.set_yticks(range(size), labels)
        axes.tick_params(which="major", labelsize=7 if many else 9)
    axes.set(xlabel="predicted", ylabel="truth")
    axes.set_title(title, fontsize=16 if many else 10)
    return figure
