"""A figure of attention maps over an image, in one color scale; uniform attention is colorless."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from botvision.tasks.predictor import Box

_LARGEST_IMAGE = 640  # pixels of the longer side, in a panel; a panel has no more
_BLACK = -110  # shown as black: tints are not seen on dark parts, so the image is brightened
_MARK = "#00e5ff"
_OPACITY = 0.85  # of the strongest colors
_FEWEST_DOUBLINGS, _MOST_DOUBLINGS = 1, 6  # of uniform attention, at the ends of the color scale


@dataclass(frozen=True)
class Panel:
    """A map over the image.

    Attributes:
        title: What it is, a few words.
        cells: Probabilities [H, W]; None: the image alone.
        sets_scale: Whether the color scale of the figure reaches to its largest value.
    """

    title: str
    cells: NDArray[np.float32] | None
    sets_scale: bool = True


@dataclass(frozen=True)
class PanelRow:
    """Maps beside each other.

    Attributes:
        label: Text at the left, of one or two lines.
        box: The part of the image under the maps: x1, y1, x2, y2 in pixels.
        panels: The maps.
    """

    label: str
    box: Box
    panels: Sequence[Panel]


def panel_figure(
    image: Image.Image,
    rows: Sequence[PanelRow],
    title: str,
    *,
    cross: tuple[float, float] | None = None,
    lines: Sequence[NDArray[np.float64]] = (),
) -> Figure:
    """Return a figure of rows of maps.

    Args:
        image: The image.
        rows: The rows, at least one.
        title: Title of the figure.
        cross: (x, y) of a point to mark in all panels.
        lines: Lines to draw in all panels, [n, 2] each.
    """
    columns = max(len(row.panels) for row in rows)
    width, height = _panel_size(image, len(rows) * columns)
    figure = Figure(
        figsize=(width * columns + 0.5, (height + 0.5) * len(rows) + 1.0), layout="constrained"
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    background = image.convert("L")
    background.thumbnail((_LARGEST_IMAGE, _LARGEST_IMAGE))
    end = _doublings(rows)
    norm = Normalize(-end, end)
    for row, places in zip(rows, axes, strict=True):
        for place in places:
            place.axis("off")
        for panel, place in zip(row.panels, places, strict=False):
            _draw(place, panel, background, image.size, row.box, norm)
            if cross is not None:
                place.plot(*cross, marker="+", color=_MARK, markersize=12, markeredgewidth=2)
            for line in lines:
                place.plot(*line.T, color=_MARK, linewidth=1.2)
        _label(places[0], row.label)
    colors = matplotlib.cm.ScalarMappable(norm, _COLORS)
    bar = figure.colorbar(
        colors, ax=axes, location="top", shrink=0.8, aspect=70, extend="both", pad=0.01
    )
    ticks = range(-end, end + 1)
    bar.set_ticks([*ticks], labels=[_times(tick) for tick in ticks])
    bar.ax.tick_params(labelsize=7)
    bar.set_label("attention, in multiples of uniform attention", fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def _panel_size(image: Image.Image, panels: int) -> tuple[float, float]:
    """Return the width and height of a panel in inches: of one area, whatever the image's shape."""
    shape = min(max(image.height / image.width, 0.25), 4)
    side = min(3.0, max(1.9, 3.0 * math.sqrt(80 / panels)))
    return max(1.8, side / math.sqrt(shape)), side * math.sqrt(shape)


def _doublings(rows: Sequence[PanelRow]) -> int:
    """Return how often uniform attention is doubled, and halved, at the ends of the color scale."""
    largest = max(
        (
            float(_relative(panel.cells).max())
            for row in rows
            for panel in row.panels
            if panel.cells is not None and panel.sets_scale
        ),
        default=1.0,
    )
    doublings = math.ceil(math.log2(max(largest, 1.0)) - 1e-6)
    return min(max(doublings, _FEWEST_DOUBLINGS), _MOST_DOUBLINGS)


def _relative(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities in multiples of uniform attention to the cells."""
    return cells * cells.size


def _draw(
    place: Any,
    panel: Panel,
    background: Image.Image,
    size: tuple[int, int],
    box: Box,
    norm: Normalize,
) -> None:
    width, height = size
    place.imshow(background, cmap="gray", vmin=_BLACK, vmax=255, extent=(0, width, height, 0))
    text = panel.title
    if panel.cells is not None:
        left, top, right, bottom = box
        levels = np.log2(np.maximum(_relative(panel.cells), 2.0**-30))
        place.imshow(
            levels,
            _COLORS,
            norm=norm,
            extent=(left, right, bottom, top),
            interpolation="nearest",
        )
        text = f"{text}\n{_figures(panel.cells)}"
    place.set(xlim=(0, width), ylim=(height, 0))
    place.set_title(text, fontsize=7)


def _label(place: Any, text: str) -> None:
    place.axis("on")
    place.set(xticks=[], yticks=[])
    place.spines[:].set_visible(False)
    place.set_ylabel(text, fontsize=7)


def _figures(cells: NDArray[np.float32]) -> str:
    """Return the largest probability and the entropy of probabilities, which may lack some."""
    total = float(cells.sum(dtype=np.float64))
    largest = float(cells.max())
    shares = cells.astype(np.float64).flatten() / max(total, 1e-30)
    shares = shares[shares > 0]
    entropy = -float((shares * np.log(shares)).sum())
    fraction = entropy / math.log(cells.size) if cells.size > 1 else 1.0
    text = f"max {100 * largest:.2g}%, {largest * cells.size:.2g}x; entropy {100 * fraction:.3g}%"
    return text if total > 0.995 else f"{text}\n{100 * (1 - total):.0f}% on padding"


def _times(doublings: int) -> str:
    return f"{2**doublings}x" if doublings >= 0 else f"1/{2**-doublings}x"


def _colors() -> ListedColormap:
    """Blue below uniform attention, orange to yellow above it, colorless at it."""
    level = np.linspace(0, 1, 128)
    above = matplotlib.colormaps["autumn"](0.25 + 0.75 * level)
    below = matplotlib.colormaps["winter"](0.35 * (1 - level))
    above[:, 3] = below[:, 3] = _OPACITY * level**0.8
    return ListedColormap(np.concatenate([below[::-1], above]), name="relative_attention")


_COLORS = _colors()
