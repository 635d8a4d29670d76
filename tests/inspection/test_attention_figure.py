"""What the figure of attention maps says in words, and where it puts them."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from botvision.inspection.attention_figure import Panel, PanelRow, panel_figure

BOX = (0.0, 0.0, 64.0, 64.0)


def figure_of(*maps, size=(64, 64), label="layer4.0.conv2"):
    panels = [Panel(f"head {number}", np.float32(cells)) for number, cells in enumerate(maps)]
    return panel_figure(Image.new("RGB", size), [PanelRow(label, BOX, panels)], "title")


def peak(probability):
    cells = np.full((4, 4), (1 - probability) / 15)
    cells[1, 2] = probability
    return cells


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (np.full((4, 4), 1 / 16), "max 6.2%, 1.0x; entropy 100.0%"),
        (peak(1), "max 100%, 16x; entropy 0.0%"),
        (peak(0.5), "max 50%, 8.0x; entropy 73.8%"),
        (np.full((256, 256), 2.0**-16), "max 0.0015%, 1.0x; entropy 100.0%"),
        (np.ones((1, 1)), "max 100%, 1.0x; entropy 100.0%"),
        (np.full((4, 4), 0.75 / 16), "max 4.7%, 0.8x; entropy 100.0%\n25% on padding"),
        (np.zeros((4, 4)), "max 0%, 0.0x; entropy 0.0%\n100% on padding"),
    ],
)
def test_title(cells, expected):
    assert f"head 0\n{expected}" in [text.get_text() for text in figure_of(cells).texts]


@pytest.mark.parametrize(
    ("maps", "ends"),
    [
        ([np.full((4, 4), 1 / 16)], ("1/2x", "2x")),
        ([np.full((4, 4), 1 / 16), peak(3 / 16)], ("1/4x", "4x")),
        ([peak(1)], ("1/16x", "16x")),
        ([np.pad([[1.0]], (0, 15))], ("1/64x", "64x")),
    ],
)
def test_one_scale_for_all(maps, ends):
    *_, bar = figure_of(*maps).axes
    labels = [label.get_text() for label in bar.get_xticklabels()]
    assert (labels[0], labels[len(labels) // 2], labels[-1]) == (ends[0], "1x", ends[1])


@pytest.mark.parametrize("size", [(64, 64), (3000, 30), (30, 3000)], ids=str)
def test_texts_lie_in_the_figure_and_apart(size):
    label = "backbone.stages.3.blocks.11.conv2_kxk.attention"
    figure = figure_of(*[peak(0.123)] * 3, size=size, label=label)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    assert all(0 <= box.x0 < box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(0 <= box.y0 < box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
