"""Costs as the command shows them, against the paper's table 1."""

import pytest
import torch

import botvision
from botvision.models.costs import ModelCosts, model_costs


@pytest.mark.parametrize(
    ("name", "expected", "within"), [("resnet50", 85.4e9, 0.001), ("botnet50", 102.98e9, 0.01)]
)
def test_multiply_adds_at_1024(name, expected, within):
    costs = model_costs(name, 1024)
    assert costs.multiply_adds == pytest.approx(expected, rel=within)
    assert costs.input_size == 1024


def test_multiply_adds_of_a_convolution_by_hand():
    # A linear layer of 2 x 3 has 6 products, which torch's counter calls 12 operations.
    costs = model_costs("resnet18")
    first = 64 * 3 * 7 * 7 * 112 * 112
    stage1 = 4 * 64 * 64 * 9 * 56 * 56
    later = sum(
        (c * c // 2 * 9 + 3 * c * c * 9 + c * c // 2) * s * s
        for c, s in ((128, 28), (256, 14), (512, 7))
    )
    assert costs.multiply_adds == first + stage1 + later + 512 * 1000


@pytest.mark.parametrize("name", ["botnet50_s1", "botnet_tiny", "resnet18"])
def test_parameters_and_default_size(name):
    costs = model_costs(name)
    assert isinstance(costs, ModelCosts)
    assert costs.name == name
    with torch.device("meta"):
        model = botvision.create_model(name)
    assert costs.parameters == sum(p.numel() for p in model.parameters())
    assert costs.input_size == (128 if name == "botnet_tiny" else 224)


def test_attention_is_counted():
    # Without its products a BoTNet at 1024 would cost less than the ResNet.
    assert model_costs("botnet50", 1024).multiply_adds > model_costs("resnet50", 1024).multiply_adds


def test_unknown_model():
    with pytest.raises(ValueError, match="'botnet5' is unknown; did you mean botnet50"):
        model_costs("botnet5")
