"""Other packages' BoTNets with our attention: the same logits, and any image size."""

import copy
import sys
import warnings

import pytest
import timm
import torch
from timm.layers.bottleneck_attn import BottleneckAttn
from torch import nn
from torch.testing import assert_close

from botvision.attention import MultiHeadSelfAttention2d
from botvision.models.foreign import ConvertedAttention2d, convert_attention

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from bottleneck_transformer_pytorch import BottleStack
    from bottleneck_transformer_pytorch.bottleneck_transformer_pytorch import AbsPosEmb


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def sharpened(network):
    """Positions that count, and residual branches that are not zero."""
    for name, parameter in network.named_parameters():
        if name.rpartition(".")[2] in {"height_rel", "width_rel", "rel_height", "rel_width"}:
            nn.init.normal_(parameter)
    for module in network.modules():
        if isinstance(module, AbsPosEmb):
            nn.init.normal_(module.height)
            nn.init.normal_(module.width)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (6, 4)], ids=str)
@pytest.mark.parametrize(
    "widths",
    [{}, {"dim_head": 8}, {"dim_out": 32, "qkv_bias": True}, {"num_heads": 2, "qk_ratio": 0.5}],
    ids=str,
)
def test_timms_attention(widths, size, stride, scaled):
    # Maps that are not square tell rows from columns; random tables tell their direction.
    theirs = BottleneckAttn(
        16, feat_size=size, stride=stride, scale_pos_embed=scaled, **widths
    ).double()
    sharpened(theirs)
    x = torch.randn(2, 16, *size, dtype=torch.float64)
    expected = theirs(x)
    ours = convert_attention(theirs)
    assert not any(isinstance(module, BottleneckAttn) for module in ours.modules())
    assert_close(ours(x), expected)
    odd = ours(torch.randn(1, 16, 5, 9, dtype=torch.float64))
    assert odd.shape == (1, expected.shape[1], -(-5 // stride), -(-9 // stride))


# Blocks of all four kinds of the issue; the others of timm's are made of the same.
@pytest.mark.parametrize("name", ["botnet26t_256", "eca_botnext26ts_256", "halo2botnet50ts_256"])
def test_timms_networks(name):
    network = sharpened(timm.create_model(name, pretrained=False, num_classes=8))
    nn.init.normal_(network.head.fc.weight, std=1.0)
    count = sum(isinstance(module, BottleneckAttn) for module in network.modules())
    kept = {n: t.clone() for n, t in network.state_dict().items() if "self_attn" not in n}
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        expected = network(x)
        assert expected.std() > 0.3
        assert convert_attention(network) is network
        assert_close(network(x), expected, rtol=1e-5, atol=1e-5)
    ours = [m for m in network.modules() if isinstance(m, MultiHeadSelfAttention2d)]
    assert len(ours) == count > 0
    after = network.state_dict()
    assert all(torch.equal(after[n], t) for n, t in kept.items())
    # Halo attention stays as it was, and so does its size.
    assert network.pretrained_cfg["fixed_input_size"] is ("halo" in name)
    if "halo" not in name:
        for size in [(224, 224), (250, 250), (320, 256), (33, 71)]:
            assert network(torch.randn(1, 3, *size)).shape == (1, 8)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("size", [(6, 4), (8, 8)], ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"downsample": False}, {"heads": 2, "dim_head": 8}], ids=str
)
def test_bottle_stack(options, size, relative):
    arguments = {"dim": 16, "dim_out": 32, "num_layers": 2, "heads": 4, "dim_head": 4, **options}
    stack = sharpened(BottleStack(fmap_size=size, rel_pos_emb=relative, **arguments)).double()
    network = nn.Sequential(nn.Conv2d(3, 16, 1), stack).double().eval()
    names = [name for name, _ in network.named_parameters()]
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = network(x)
    assert convert_attention(network) is network
    assert_close(network(x), expected)
    assert len(list(network.parameters())) == len(names)
    stride = 1 if options.get("downsample") is False else 2
    odd = network(torch.randn(1, 3, 5, 9, dtype=torch.float64))
    assert odd.shape == (1, 32, -(-5 // stride), -(-9 // stride))


def test_a_stack_by_itself_is_replaced():
    stack = sharpened(BottleStack(dim=8, fmap_size=4, dim_out=16, dim_head=4, rel_pos_emb=True))
    x = torch.randn(1, 8, 4, 4)
    expected = stack(x)
    converted = convert_attention(stack)
    assert converted is not stack
    assert_close(converted(x), expected)
    assert converted(torch.randn(1, 8, 7, 3)).shape == (1, 16, 4, 2)


def test_parameters_mode_and_trainability_are_kept():
    theirs = BottleneckAttn(16, feat_size=(4, 4)).double().eval()
    theirs.pos_embed.height_rel.requires_grad_(False)
    network = nn.Sequential(theirs).eval()
    weight = theirs.qkv.weight
    with torch.no_grad():
        convert_attention(network, impl="reference")
    attention = network[0].attention
    assert attention.qkv.weight is weight
    assert attention.impl == "reference"
    assert not attention.position.height.requires_grad
    assert attention.position.width.requires_grad
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    assert not any(module.training for module in network.modules())


def test_converted_attention_trains_copies_and_shows_its_map():
    layer = convert_attention(BottleneckAttn(16, feat_size=(4, 4), stride=2, dim_head=8)).train()
    x = torch.randn(2, 16, 5, 6)
    layer(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
    assert_close(copy.deepcopy(layer)(x), layer(x))
    assert isinstance(layer.attention, ConvertedAttention2d)
    seen = layer.attention.attention_map(x, 2, 3)
    assert seen.shape == (2, 4, 5, 6)
    assert_close(seen.sum((2, 3)), torch.ones(2, 4))


def training_step(forward, network, x):
    """Output and gradients of a network in training."""
    network.zero_grad()
    x = x.clone().requires_grad_()
    out = forward(x)
    out.square().sum().backward()
    return out.detach(), x.grad, *(parameter.grad.clone() for parameter in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    "theirs",
    [
        lambda: BottleneckAttn(16, feat_size=(4, 4), stride=2),
        lambda: BottleStack(dim=16, fmap_size=4, dim_out=16, num_layers=1, rel_pos_emb=True),
    ],
    ids=["timm", "BottleStack"],
)
def test_compiled_training_on_an_odd_map(theirs, apart):
    def check():
        # Where inductor differentiates pooling that rounds up by itself.
        network = convert_attention(sharpened(theirs())).double().train()
        x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
        actual = training_step(torch.compile(network), network, x)
        assert_close(actual, training_step(network, network, x), rtol=1e-7, atol=1e-9)

    apart(check)


@pytest.mark.parametrize("network", [nn.Linear(2, 2), timm.create_model("test_resnet")])
def test_nothing_to_convert(network):
    with pytest.raises(ValueError, match=f"expected one that contains .*{type(network).__name__}"):
        convert_attention(network)


def test_unknown_implementation_changes_nothing():
    network = nn.Sequential(BottleneckAttn(16, feat_size=(4, 4)))
    with pytest.raises(ValueError, match="impl: expected one of"):
        convert_attention(network, impl="nonsense")
    assert isinstance(network[0], BottleneckAttn)


def test_without_the_other_package(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("bottleneck_transformer_pytorch")]:
        monkeypatch.delitem(sys.modules, name)
    assert isinstance(convert_attention(BottleneckAttn(16, feat_size=(4, 4))), nn.Sequential)
