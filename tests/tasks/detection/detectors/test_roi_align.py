"""RoIAlign as matrix products equals torchvision's kernel, outputs and gradients."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from botvision.tasks.detection.detectors.roi_align import PyramidRoIAlign

LEVELS = ["p2", "p3", "p4", "p5"]


def _inputs(height, width, regions, seed):
    """Maps of an image of 4 * height x 4 * width, and regions of all sizes, some at the border."""
    generator = torch.Generator().manual_seed(seed)
    maps = {
        level: torch.randn(
            len(regions), 5, -(-height // 2**i), -(-width // 2**i), generator=generator
        ).requires_grad_()
        for i, level in enumerate(LEVELS)
    }
    limit = torch.tensor([4.0 * width, 4.0 * height])
    boxes = []
    for count in regions:
        center = torch.rand(count, 2, generator=generator) * limit
        half = torch.rand(count, 2, generator=generator) ** 2 * limit / 2
        corners = torch.cat((center - half, center + half), dim=1)
        boxes.append(corners.clamp(min=0).minimum(limit.repeat(2)))
    return maps, boxes, [(4 * height, 4 * width)] * len(regions)


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
@pytest.mark.parametrize("side", [7, 14])
@pytest.mark.parametrize(
    ("height", "width", "regions"), [(32, 32, [9, 4]), (40, 24, [1, 0, 6]), (8, 64, [3])]
)
def test_equals_torchvision(height, width, regions, side, sampling_ratio):
    maps, boxes, shapes = _inputs(height, width, regions, seed=side + sampling_ratio)
    ours = PyramidRoIAlign(LEVELS, side, sampling_ratio)
    theirs = MultiScaleRoIAlign(LEVELS, side, sampling_ratio)
    ours.canonical_scale = theirs.canonical_scale = 2 * height  # regions for every level
    pooled, expected = ours(maps, boxes, shapes), theirs(maps, boxes, shapes)
    torch.testing.assert_close(pooled, expected, atol=2e-5, rtol=1e-5)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    inputs = list(maps.values())
    for mine, other in zip(
        torch.autograd.grad((pooled * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def test_regions_at_the_far_border_of_less_than_a_cell():
    maps, _, shapes = _inputs(16, 16, [1], seed=0)
    boxes = [torch.tensor([[63.5, 63.5, 64.0, 64.0], [0.0, 63.9, 0.1, 64.0]])]
    ours = PyramidRoIAlign(LEVELS, 7, 2)
    theirs = MultiScaleRoIAlign(LEVELS, 7, 2)
    torch.testing.assert_close(ours(maps, boxes, shapes), theirs(maps, boxes, shapes))


def test_no_regions_at_all():
    maps, boxes, shapes = _inputs(16, 16, [0, 0], seed=0)
    pool = PyramidRoIAlign(LEVELS, 7, 2)
    assert pool(maps, boxes, shapes).shape == (0, 5, 7, 7)


def test_large_maps_are_left_to_torchvision(monkeypatch):
    maps, boxes, shapes = _inputs(65, 20, [3], seed=0)
    monkeypatch.setattr(PyramidRoIAlign, "_pool", None)  # would be called on small maps
    pool = PyramidRoIAlign(LEVELS, 7, 2)
    assert pool(maps, boxes, shapes).shape == (3, 5, 7, 7)
