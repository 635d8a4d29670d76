"""Outlines that reach far out of the image: the same masks, in little memory."""

import numpy as np
import pytest
from pycocotools import mask as oracle

from botvision.datasets.coco.polygons import cut_to_surroundings, instance_mask

# pycocotools' own, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 40, 60


def mask_of(polygons):
    record = {"id": 1, "bbox": [0, 0, 1, 1], "segmentation": polygons}
    return instance_mask(record, HEIGHT, WIDTH)


def test_outlines_near_the_image_stay_what_they_are():
    near = [[-WIDTH, -HEIGHT, 2 * WIDTH, 3.25, 7, 2 * HEIGHT], [1, 1, 5, 1, 5, 5, 1, 5]]
    assert cut_to_surroundings(near, HEIGHT, WIDTH) == near
    assert all(a is b for a, b in zip(cut_to_surroundings(near, HEIGHT, WIDTH), near, strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_masks_are_those_of_the_whole_outline(seed):
    # Up to fifty times the image's size the whole outline can still be drawn.
    rng = np.random.default_rng(seed)
    corners = rng.normal(0, rng.uniform(1, 50), (rng.integers(3, 9), 2)) * (WIDTH, HEIGHT)
    corners[0] = rng.uniform((0, 0), (WIDTH, HEIGHT))
    polygon = corners.ravel().tolist()
    (cut,) = cut_to_surroundings([polygon], HEIGHT, WIDTH)
    x, y = cut[::2], cut[1::2]
    assert -WIDTH <= min(x) <= max(x) <= 2 * WIDTH
    assert -HEIGHT <= min(y) <= max(y) <= 2 * HEIGHT
    whole = oracle.decode(oracle.merge(oracle.frPyObjects([polygon], HEIGHT, WIDTH)))
    # An edge is drawn by whole steps from its end, so that a nearer end may move it by a pixel.
    assert (mask_of([polygon]) != whole).sum() <= len(corners) * (WIDTH + HEIGHT) / 25


@pytest.mark.parametrize("far", [1e9, 1e300])
def test_a_slip_in_a_coordinate_takes_no_memory(far):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    wedge = mask_of([[10, 10, far, 10, far, far]])  # between a row and the diagonal
    assert wedge[(y > 10) & (x > y)].all()
    assert not wedge[(y < 9) | (x < y - 1)].any()
    left = mask_of([[10, 0, 10, HEIGHT, -far, HEIGHT, -far, 0]])
    assert left[:, :10].all()
    assert not left[:, 10:].any()
    assert mask_of([[-far, -far, far, -far, far, far, -far, far]]).all()
    assert not mask_of([[far, far, far, 2 * far, 2 * far, far]]).any()
