"""Attention that is disturbed on purpose, against what it should become."""

import pytest
import torch

import botvision
from botvision.attention import MultiHeadSelfAttention2d
from botvision.attention.ablation import ABLATIONS, ablated
from botvision.attention.reference import attention_probabilities
from botvision.attention.rows import attention_layers
from botvision.models.non_local import NonLocal2d


@pytest.fixture(params=["relative", "absolute", "content only", "position only"])
def layer(request):
    torch.manual_seed(0)
    options = {
        "content only": {"position": "none"},
        "position only": {"content": False},
    }.get(request.param, {"position": request.param})
    return MultiHeadSelfAttention2d(8, 2, position_size=(3, 5), **options).double()


@pytest.fixture
def x():
    return torch.randn(2, 8, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def values_of(layer, x):
    return layer.operands(x).v


def test_no_positions_is_a_layer_with_tables_of_zeros(layer, x):
    with ablated([layer], "no_positions"):
        found = layer(x)
    if layer.position is not None:
        for table in layer.position.parameters():
            torch.nn.init.zeros_(table)
    torch.testing.assert_close(found, layer(x))


def test_uniform_is_the_mean_of_the_values(layer, x):
    with ablated([layer], "uniform"):
        found = layer(x)
    mean = values_of(layer, x).mean(2)  # [B, heads, d]
    torch.testing.assert_close(found, mean.flatten(1)[:, :, None, None].expand_as(found))


def test_each_query_gets_the_attention_of_another(layer, x):
    whole = attention_probabilities(layer.operands(x))
    with ablated([layer], "other_query"):
        disturbed = attention_probabilities(layer.operands(x))
        out = layer(x)
    others = []
    for query in range(15):
        same = [
            other
            for other in range(15)
            if torch.allclose(disturbed[:, :, query], whole[:, :, other], rtol=1e-9)
        ]
        assert len(same) == 1
        others += same
    assert sorted(others) == list(range(15))
    assert all(other != query for query, other in enumerate(others))
    expected = (disturbed @ values_of(layer, x)).transpose(2, 3).reshape(out.shape)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_only_the_layers_named_and_only_inside(ablation):
    network = botvision.create_model("botnet_tiny", num_classes=3).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        before = network(image)
        (_, first), (_, second) = attention_layers(network)
        outputs = []
        for layers in ([first], [second], [first, second]):
            with ablated(layers, ablation):
                outputs.append(network(image))
        assert torch.equal(network(image), before)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(outputs[one], outputs[other])
    assert not any(torch.equal(each, before) for each in outputs)


def test_non_local_block():
    torch.manual_seed(0)
    block = NonLocal2d(8).double()
    torch.nn.init.ones_(block.norm.weight)
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    block.eval()
    with ablated([block], "uniform"):
        found = block(x)
    mean = block.g(x).mean((2, 3), keepdim=True).expand(-1, -1, 3, 4)
    torch.testing.assert_close(found, x + block.norm(block.output(mean)))


def test_one_query_keeps_its_own():
    layer = MultiHeadSelfAttention2d(8, 2, position_size=(1, 1))
    x = torch.randn(1, 8, 1, 1)
    with ablated([layer], "other_query"):
        assert torch.equal(layer(x), layer(x))


def test_unknown_ablation():
    with (
        pytest.raises(ValueError, match="ablation: expected one of no_positions"),
        ablated([], "all"),
    ):
        pass
