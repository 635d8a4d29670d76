"""Random attention inputs for the tests of this folder."""

import pytest
import torch


@pytest.fixture
def make_inputs():
    """A function that draws inputs of ``decomposed_attention`` as leaves of the graph."""

    def make(
        size,
        *,
        batch=2,
        heads=2,
        dim=4,
        value_dim=None,
        bias_h=True,
        bias_w=True,
        dtype=torch.float64,
        seed=0,
    ):
        generator = torch.Generator().manual_seed(seed)
        height, width = size
        n = height * width

        def draw(last):
            # Drawn in float64 so that all dtypes round the same numbers.
            values = torch.randn(batch, heads, n, last, generator=generator, dtype=torch.float64)
            return values.to(dtype).requires_grad_()

        inputs = {"q": draw(dim), "k": draw(dim), "v": draw(value_dim or dim)}
        inputs["bias_h"] = draw(height) if bias_h else None
        inputs["bias_w"] = draw(width) if bias_w else None
        return inputs

    return make
