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
_UNIFORM = "#9c9c9c"  # gray behind the color scale
_MARK = "#00e5ff"
_FEWEST_DOUBLINGS, _MOST_DOUBLINGS = 1, 6  # of uniform attention, at the ends of the color scale

# Inches.
_HEADER, _TITLE, _GAP = 0.95, 0.5, 0.12
_TITLE_WIDTH = 1.75
_SHORTEST_SIDE, _LONGEST_SIDE = 0.4, 7.0


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
    panel_width, panel_height = _panel_size(image, len(rows) * columns)
    # Letters of size 7 are this wide, about.
    label = 0.062 * max(len(line) for row in rows for line in row.label.splitlines()) + 3 * _GAP
    step_x, step_y = max(panel_width, _TITLE_WIDTH) + _GAP, panel_height + _TITLE
    width, height = label + step_x * columns, _HEADER + step_y * len(rows) + _GAP
    figure = Figure(figsize=(width, height))
    background = image.convert("L")
    background.thumbnail((_LARGEST_IMAGE, _LARGEST_IMAGE))
    end = _doublings(rows)
    norm = Normalize(-end, end)
    for row_number, row in enumerate(rows):
        bottom = height - _HEADER - step_y * (row_number + 1)
        for number, panel in enumerate(row.panels):
            left = label + step_x * number + (step_x - _GAP - panel_width) / 2
            place = _axes(figure, left, bottom, panel_width, panel_height)
            _draw(place, panel, background, image.size, row.box, norm)
            # A title of the axes would be measured by matplotlib, which takes longer than the rest.
            center, above = left + panel_width / 2, bottom + panel_height + 0.04
            text = panel.title
            if panel.cells is not None:
                text = f"{text}\n{_figures(panel.cells)}"
            figure.text(center / width, above / height, text, ha="center", va="bottom", fontsize=7)
            if cross is not None:
                place.plot(*cross, marker="+", color=_MARK, markersize=12, markeredgewidth=2)
            for line in lines:
                place.plot(*line.T, color=_MARK, linewidth=1.2)
        middle = (bottom + panel_height / 2) / height
        figure.text((label - _GAP) / width, middle, row.label, ha="right", va="center", fontsize=7)
    figure.text(0.5, 1 - 0.08 / height, title, ha="center", va="top", fontsize=10)
    bar_width = min(6.0, 0.85 * width)
    bar = figure.colorbar(
        matplotlib.cm.ScalarMappable(norm, _COLORS),
        cax=_axes(figure, (width - bar_width) / 2, height - 0.78, bar_width, 0.1),
        orientation="horizontal",
        ticks=[*range(-end, end + 1)],
    )
    bar.ax.set_facecolor(_UNIFORM)
    bar.ax.set_xticklabels([_times(tick) for tick in range(-end, end + 1)], fontsize=7)
    bar.ax.set_title("attention, as a multiple of uniform attention", fontsize=8)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Any:
    """Return axes at a place in inches; an automatic layout is slow for hundreds of them."""
    whole_width, whole_height = figure.get_size_inches()
    place = (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    return figure.add_axes(place)


def _panel_size(image: Image.Image, panels: int) -> tuple[float, float]:
    """Return the width and height of a panel in inches: of one area, whatever the image's shape."""
    shape = image.height / image.width
    side = min(2.6, max(1.7, 2.6 * math.sqrt(60 / panels)))
    width = side / math.sqrt(shape)
    width = min(width, _LONGEST_SIDE, _LONGEST_SIDE / shape)
    return max(width, _SHORTEST_SIDE), max(width * shape, _SHORTEST_SIDE)


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
    # A strip is stretched to a panel that can be seen.
    place.set(xlim=(0, width), ylim=(height, 0), aspect="auto", xticks=[], yticks=[])
    place.axis("off")


def _figures(cells: NDArray[np.float32]) -> str:
    """Return the largest probability and the entropy of probabilities, which may lack some."""
    total = float(cells.sum(dtype=np.float64))
    largest = float(cells.max())
    shares = cells.astype(np.float64).flatten() / max(total, 1e-30)
    shares = shares[shares > 0]
    entropy = max(0.0, -float((shares * np.log(shares)).sum()))
    fraction = entropy / math.log(cells.size) if cells.size > 1 else 1.0
    times = largest * cells.size
    percent = 100 * largest
    shown = f"{percent:.2g}" if percent < 9.95 else f"{percent:.0f}"
    multiple = f"{times:.1f}" if times < 9.95 else f"{times:.0f}"
    text = f"max {shown}%, {multiple}x; entropy {100 * fraction:.1f}%"
    return text if total > 0.995 else f"{text}\n{100 * (1 - total):.0f}% on padding"


def _times(doublings: int) -> str:
    return f"{2**doublings}x" if doublings >= 0 else f"1/{2**-doublings}x"


def _colors() -> ListedColormap:
    """Dark below uniform attention, orange to yellow above it, clear at it."""
    level = np.linspace(0, 1, 128)
    above = matplotlib.colormaps["autumn"](0.35 + 0.65 * level)
    below = np.zeros_like(above)
    above[:, 3], below[:, 3] = 0.85 * level**0.7, 0.7 * level
    return ListedColormap(np.concatenate([below[::-1], above]), name="relative_attention")


_COLORS = _colors()
