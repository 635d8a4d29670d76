"""What a recipe's precision does to a product."""

import pytest
import torch

from botvision.precision import autocast


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_have_the_precision(precision):
    x = torch.ones(2, 2)
    with autocast(torch.device("cpu"), precision):
        assert (x @ x).dtype == getattr(torch, precision)
    assert (x @ x).dtype == torch.float32
