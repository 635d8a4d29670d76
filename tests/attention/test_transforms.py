"""Derivatives of all kinds, vmap, traces and graphs: equal to eager, or refused."""

import pytest
import timm
import torch
from torch.autograd import forward_ad
from torch.utils.tensorboard import SummaryWriter
from torchvision.models.feature_extraction import create_feature_extractor

import botvision
from botvision.attention import MultiHeadSelfAttention2d, decomposed_attention

# torch's own forward-mode rules and its tracer say that TorchScript is deprecated, among others.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning",
    "ignore:`torch.jit:DeprecationWarning",
    "ignore::torch.jit.TracerWarning",
    "ignore:Attempted to insert a get_attr Node:UserWarning",  # in torch.func.linearize
)
KINDS = [("relative", True), ("absolute", True), ("none", True), ("relative", False)]


def make_layer(position="relative", content=True, impl="auto"):
    torch.manual_seed(0)
    return MultiHeadSelfAttention2d(
        8, 2, position=position, content=content, position_size=(3, 4), impl=impl
    ).double()


def dual(layer, x, v):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(layer(forward_ad.make_dual(x, v))).tangent


FORWARD_MODES = {
    "jvp": lambda layer, x, v: torch.func.jvp(layer, (x,), (v,))[1],
    "linearize": lambda layer, x, v: torch.func.linearize(layer, x)[1](v),
    "jacfwd": lambda layer, x, v: torch.einsum(
        "abcdefgh,efgh->abcd", torch.func.jacfwd(layer)(x), v
    ),
    "dual": dual,
}


@pytest.mark.parametrize("way", FORWARD_MODES)
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(("position", "content"), KINDS)
def test_forward_mode_is_that_of_finite_differences(way, trained, position, content):
    layer = make_layer(position, content).requires_grad_(trained)
    x, v = torch.randn(2, 1, 8, 3, 4, dtype=torch.float64).unbind()
    wanted = (layer(x + 1e-6 * v) - layer(x - 1e-6 * v)) / 2e-6
    assert torch.allclose(FORWARD_MODES[way](layer, x, v), wanted, rtol=1e-6, atol=1e-7)
    assert wanted.abs().max() > 0.1


def test_forward_mode_of_a_position_table():
    layer = make_layer()
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    table, v = layer.position.height, torch.randn_like(layer.position.height)

    def at(values):
        return torch.func.functional_call(layer, {"position.height": values}, (x,))

    wanted = (at(table + 1e-6 * v) - at(table - 1e-6 * v)) / 2e-6
    assert torch.allclose(torch.func.jvp(at, (table,), (v,))[1], wanted, rtol=1e-6, atol=1e-7)
    # Neither queries nor values have a tangent here.
    assert torch.allclose(dual(at, table.detach(), v), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("compiled_before", [True, False])
def test_forward_mode_through_a_compiled_layer(compiled_before):
    layer = make_layer().requires_grad_(False)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager")
    x, v = torch.randn(2, 1, 8, 3, 4, dtype=torch.float64).unbind()
    if compiled_before:
        compiled(x)
    wanted = (layer(x + 1e-6 * v) - layer(x - 1e-6 * v)) / 2e-6
    assert torch.allclose(dual(compiled, x, v), wanted, rtol=1e-6, atol=1e-7)
    assert torch.allclose(compiled(x), layer(x))
    torch.compiler.reset()


@pytest.mark.parametrize("way", [*FORWARD_MODES, "vmap"])
def test_an_operator_without_rules_says_what_to_do(way):
    layer = make_layer(impl="chunked")
    x, v = torch.randn(2, 1, 8, 3, 4, dtype=torch.float64).unbind()
    modes = {**FORWARD_MODES, "vmap": lambda layer, x, _: torch.func.vmap(layer)(x[None])}
    with pytest.raises(ValueError, match=r"expected 'auto' or 'reference' .* got 'chunked'"):
        modes[way](layer, x, v)


@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_vmap_is_one_by_one(impl):
    layer = make_layer(impl=impl)
    x = torch.randn(3, 2, 8, 3, 4, dtype=torch.float64)
    assert torch.allclose(torch.func.vmap(layer)(x), torch.stack([layer(each) for each in x]))


def test_gradients_of_each_sample():
    layer, x = make_layer(), torch.randn(3, 8, 3, 4, dtype=torch.float64)
    parameters = dict(layer.named_parameters())

    def loss(parameters, sample):
        return torch.func.functional_call(layer, parameters, (sample[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for index, sample in enumerate(x):
        wanted = torch.func.grad(loss)(parameters, sample)
        assert all(torch.allclose(found[name][index], wanted[name]) for name in wanted)


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("content", [True, False])
def test_second_derivatives(biases, content):
    torch.manual_seed(0)
    size, options = (3, 2), {"dtype": torch.float64, "requires_grad": True}
    qkv = [torch.randn(1, 2, 6, 3, **options) for _ in range(3)]
    given = [
        torch.randn(1, 2, 6, side, **options)
        for side, there in zip(size, biases, strict=True)
        if there
    ]

    def attend(q, k, v, *rest):
        left = iter(rest)
        bias_h, bias_w = (next(left) if there else None for there in biases)
        return decomposed_attention(
            q, k, v, bias_h, bias_w, size=size, content=content, impl="chunked"
        )

    assert torch.autograd.gradgradcheck(attend, (*qkv, *given), atol=1e-6)


def test_derivatives_up_to_the_third_are_those_of_the_reference():
    def derivatives(impl):
        layer = make_layer(impl=impl)
        x = torch.linspace(-1, 1, 96, dtype=torch.float64).reshape(1, 8, 3, 4).requires_grad_()
        value, found = layer(x).square().sum(), []
        for _ in range(3):
            (grad,) = torch.autograd.grad(value, x, create_graph=True)
            found.append(grad.detach())
            value = grad.square().sum()
        value.backward()
        return [*found, *(each.grad for each in layer.parameters())]

    for found, wanted in zip(derivatives("chunked"), derivatives("reference"), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-8 * float(wanted.abs().max()))


NETWORKS = ["botnet_tiny", "botnet_tiny_s1", "resnet50_bot_c4", "resnet50_nl_c4", "botified"]


def make_network(name):
    torch.manual_seed(0)
    if name == "botified":
        return botvision.botify(timm.create_model("resnet26", zero_init_last=False)).eval()
    arguments = {"output_stride": 16} if name.endswith("_s1") else {}
    name = name.removesuffix("_s1")
    return timm.create_model(name, zero_init_last=False, num_classes=5, **arguments).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_trace_holds_at_other_sizes_and_batches(name):
    network = make_network(name)
    with torch.no_grad():
        traced = torch.jit.trace(network, torch.randn(2, 3, 64, 64), check_trace=False)
        for shape in [(2, 64, 64), (1, 96, 64), (3, 72, 130), (1, 33, 33)]:
            x = torch.randn(shape[0], 3, *shape[1:])
            wanted = network(x)
            assert torch.allclose(traced(x), wanted, rtol=1e-4, atol=1e-5 * float(wanted.std()))
    assert "botvision::" not in str(traced.inlined_graph)


def test_tensorboard_draws_the_graph(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_graph(make_network("botnet_tiny"), torch.randn(1, 3, 64, 64))
    assert next(tmp_path.iterdir()).stat().st_size > 10_000


@pytest.mark.parametrize("name", NETWORKS)
def test_fx_graphs_compute_the_same(name):
    network, x = make_network(name), torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        assert torch.equal(torch.fx.symbolic_trace(network)(x), network(x))
        maps = create_feature_extractor(network, {"layer3": "c4", "layer4": "c5"})(x)
        assert torch.equal(maps["c5"], network.forward_features(x))
