"""The Non-Local block against its formula, position by position."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from botvision.models import NonLocal2d


def make_block(channels=6, **options):
    torch.manual_seed(0)
    block = NonLocal2d(channels, **options).double().eval()
    for projection in (block.theta, block.phi, block.g, block.output):
        nn.init.normal_(projection.weight, std=0.7)
    nn.init.uniform_(block.norm.weight, 0.5, 2.0)
    nn.init.normal_(block.norm.bias)
    nn.init.normal_(block.norm.running_mean)
    nn.init.uniform_(block.norm.running_var, 0.5, 2.0)
    return block


def by_the_formula(block, x):
    """Wang et al. 2018, equations 1, 4 and 6, with loops over the positions."""
    theta, phi, g, output = (
        getattr(block, name).weight[:, :, 0, 0] for name in ("theta", "phi", "g", "output")
    )
    norm = block.norm
    images = []
    for image in x:
        vectors = image.flatten(1).t()
        positions = []
        for here in vectors:
            weights = [
                torch.exp((theta @ here) @ (phi @ there) / len(g) ** 0.5) for there in vectors
            ]
            values = [w * (g @ there) for w, there in zip(weights, vectors, strict=True)]
            added = output @ (sum(values) / sum(weights))
            added = (added - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
            positions.append(here + added * norm.weight + norm.bias)
        images.append(torch.stack(positions, dim=1).reshape(image.shape))
    return torch.stack(images)


@pytest.mark.parametrize("size", [(2, 3), (1, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("impl", ["auto", "reference", "chunked", "fused"])
def test_formula(size, impl):
    block = make_block(impl=impl)
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    ours, expected = block(x), by_the_formula(block, x)
    assert_close(ours, expected)
    weights = torch.randn_like(ours)
    inputs = [x, *block.parameters()]
    assert_close(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(expected, inputs, weights)
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_starts_as_the_identity(mode):
    block = getattr(NonLocal2d(8), mode)()
    x = torch.randn(2, 8, 5, 4)
    assert_close(block(x), x, rtol=0, atol=0)


def test_learns_from_the_start():
    # Zero is the normalization's weight alone, so it has a gradient and the rest follows.
    block = NonLocal2d(8)
    block(torch.randn(2, 8, 5, 4)).square().sum().backward()
    assert block.norm.weight.grad.abs().max() > 0


def test_shapes_of_the_projections():
    block = NonLocal2d(1024)
    assert {n: tuple(p.shape) for n, p in block.named_parameters() if "norm" not in n} == {
        "theta.weight": (512, 1024, 1, 1),
        "phi.weight": (512, 1024, 1, 1),
        "g.weight": (512, 1024, 1, 1),
        "output.weight": (1024, 512, 1, 1),
    }


def test_channels_last_gives_the_same():
    block = make_block(8)
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    assert_close(block(x.to(memory_format=torch.channels_last)), block(x))


def test_odd_number_of_channels():
    with pytest.raises(ValueError, match="channels: expected an even number, got 7"):
        NonLocal2d(7)


def test_unknown_implementation():
    with pytest.raises(ValueError, match=r"impl: expected one of auto, .* got 'fast'"):
        NonLocal2d(8, impl="fast")(torch.randn(1, 8, 2, 2))
