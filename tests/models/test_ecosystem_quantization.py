"""torchao's int8 takes what is an ``nn.Linear`` in our networks: the classifier."""

import copy

import pytest
import timm
import torch
from torch import nn
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    quantize_,
)
from torchao.utils import TorchAOBaseTensor

import botvision.models  # noqa: F401  # registers the models with timm

CONFIGS = {"weights": Int8WeightOnlyConfig, "activations": Int8DynamicActivationInt8WeightConfig}


def trained(name="botnet_tiny", **options):
    """A classifier after a few steps, so that no statistics are those of a new one."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{"img_size": 64, "num_classes": 10, **options})
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(image()), torch.arange(8)).backward()
        optimizer.step()
    return model.eval()


def image():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 64, 64, generator=generator)


def quantized(model, config):
    """A copy; without the option torchao changes the compiler's settings for the whole process."""
    twin = copy.deepcopy(model)
    quantize_(twin, config(set_inductor_config=False))
    return twin


@torch.no_grad()
def distance(actual, expected):
    """Root mean square of the difference, in standard deviations of what is expected."""
    return float((actual - expected).square().mean().sqrt() / expected.std())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_classifier_is_quantized(variant, config):
    model = trained(**variant)
    narrow = quantized(model, config)
    # The attention's projection is computed as a matrix product, but its weight is that of a 1x1
    # convolution, which torchao leaves alone as it does the backbone's.
    names = {n for n, p in narrow.named_parameters() if isinstance(p, TorchAOBaseTensor)}
    assert names == {"fc.weight"}
    assert narrow.fc.weight.qdata.dtype == torch.int8
    state = narrow.state_dict()
    for name, tensor in model.state_dict().items():
        assert name in names or torch.equal(state[name], tensor), name
    with torch.no_grad():
        logits, expected = narrow(image()), model(image())
    assert 0 < distance(logits, expected) < 0.03
