"""Pixels and the cells they lie in, one pixel after the other."""

import numpy as np
import pytest
import torch

from botvision.inspection.attention_pixels import Pixels


def one_by_one(pixels, covered, size):
    left, top, right, bottom = covered
    counts = torch.zeros(size, dtype=torch.float64)
    for y, x in np.argwhere(pixels.window):
        row = int((pixels.top + y + 0.5 - top) / (bottom - top) * size[0])
        column = int((pixels.left + x + 0.5 - left) / (right - left) * size[1])
        counts[row, column] += 1
    return counts / counts.sum()


@pytest.mark.parametrize("size", [(4, 4), (3, 7), (50, 61), (1, 1)], ids=str)
@pytest.mark.parametrize("covered", [(0, 0, 40, 30), (0, 0, 64.5, 64.5)], ids=str)
def test_fractions(size, covered):
    window = np.random.default_rng(0).random((17, 22)) < 0.4
    pixels = Pixels(window, 15, 9)
    found = pixels.fractions(covered, size)
    assert torch.equal(found, one_by_one(pixels, covered, size))
    assert found.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((1.2, 2.0, 4.0, 5.5), (1, 2, 3, 4)),
        ((-3.0, -2.0, 100.0, 100.0), (0, 0, 40, 30)),
        ((7.3, 8.4, 7.4, 8.4), (7, 8, 1, 1)),
        ((40.0, 30.0, 40.0, 30.0), (39, 29, 1, 1)),
    ],
    ids=str,
)
def test_of_a_box(box, place):
    pixels = Pixels.of_box(box, (40, 30))
    height, width = pixels.window.shape
    assert (pixels.left, pixels.top, width, height) == place
    assert pixels.window.all()


def test_outline_of_a_rectangle_with_a_hole():
    window = np.ones((6, 8), np.bool_)
    window[2:4, 3:5] = False
    lines = Pixels(window, 10, 20).outline()
    assert len(lines) == 2
    extents = sorted([*line.min(0), *line.max(0)] for line in lines)
    assert extents == [[10, 20, 18, 26], [13, 22, 15, 24]]
    assert all((line[0] == line[-1]).all() for line in lines)


def test_outline_of_a_large_mask_has_few_points():
    window = np.zeros((3000, 4000), np.bool_)
    window[700, 5:3990] = True  # a line of one pixel stays
    (line,) = Pixels(window, 0, 0).outline()
    assert len(line) < 1200
    assert (np.abs([*line.min(0), *line.max(0)] - np.array([5, 700, 3990, 701])) <= 16).all()
