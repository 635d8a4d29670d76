"""What libraries hook onto a layer, or put in its place, takes part in the attention too."""

import pytest
import timm
import torch
from accelerate import cpu_offload
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from botvision.models.foreign import convert_attention


def tiny(**options):
    torch.manual_seed(0)
    arguments = {"img_size": 64, "num_classes": 5, "layers": (1, 1, 1, 2), "zero_init_last": False}
    return timm.create_model("botnet_tiny", **{**arguments, **options})


def image():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 64, 96, generator=generator)


def wake(model):
    """Undo the zeros that begin residual branches, which would hide them from a test."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)


def projection(model):
    return model.layer4[0].conv2.attention.qkv


def test_graph_of_features(variant):
    # timm's fx extractor keeps our layer whole, since it branches on shapes.
    expected = tiny(features_only=True, **variant).eval()(image())
    model = tiny(features_only=True, feature_cls="fx", **variant).eval()
    assert_close(model(image()), expected, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["botnet_tiny", "resnet50_nl_c4", "botnet26t_256"])
def test_offloaded_parameters_come_back(name):
    # Accelerate holds the parameters apart and gives each layer its own when it is called.
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5)
    if name == "botnet26t_256":
        model = convert_attention(model)
    wake(model.eval())
    expected = model(image())
    offloaded = cpu_offload(model, execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in offloaded.parameters()} == {"meta"}
    assert_close(offloaded(image()), expected, rtol=0, atol=0)


def test_pruned_projection_trains():
    # A pruned weight is computed again at each call.
    model = tiny()
    prune.l1_unstructured(projection(model), "weight", 0.5)
    before = projection(model).weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(image()).square().sum().backward()
        optimizer.step()
    model(image())
    after = projection(model).weight
    assert torch.equal(after == 0, before == 0)
    assert (after == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert not torch.equal(after, before)


class LowRank(nn.Module):
    """An adapter beside a convolution, as parameter-efficient fine-tuning puts it there."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Conv2d(base.in_channels, 4, 1, bias=False)
        self.up = nn.Conv2d(4, base.out_channels, 1, bias=False)

    @property
    def weight(self):
        return self.base.weight

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_adapter_learns():
    model = tiny().eval()
    expected = model(image())
    model.layer4[0].conv2.attention.qkv = adapter = LowRank(projection(model))
    out = model(image())
    assert not torch.allclose(out, expected, atol=1e-3)
    out.sum().backward()
    assert adapter.down.weight.grad.any()


def test_projection_is_a_convolution():
    model = tiny()
    x = torch.randn(2, 256, 4, 6)
    expected = nn.functional.conv2d(x, projection(model).weight)
    assert_close(projection(model)(x), expected, rtol=1e-4, atol=1e-5)
