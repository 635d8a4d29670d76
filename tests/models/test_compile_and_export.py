"""A BoTNet goes through ``torch.compile`` and ``torch.export`` whole, at any image size."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._ops import OpOverload
from torch.export import Dim
from torch.testing import assert_close

from botvision.models import create_model

# The first is that of the tables; the second shares no side with it, the third one. The second's
# maps are the only odd ones, 3 x 6 where the attention pools.
SIZES = [(64, 64), (48, 96), (64, 96)]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def tiny(**kwargs):
    """One block a stage, and both kinds of attention block: with and without pooling."""
    torch.manual_seed(0)
    model = create_model("botnet_tiny", img_size=64, num_classes=5, layers=(1, 1, 1, 2), **kwargs)
    for block in model.modules():
        if hasattr(block, "zero_init_last"):  # a gamma of zero would hide the attention
            nn.init.ones_(block.bn3.weight)
    return model


def image(size, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *size, generator=generator, dtype=torch.float64).to(dtype)


def training_step(forward, model, x, *, autocast=False):
    """Output, gradients and running statistics of a model in training."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = forward(x)
    out.float().square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    return {"output": out.detach(), "image": x.grad, **gradients, **buffers}


def assert_compiles(backend, sizes):
    """Training at each size in float64, in which no rounding tta a ReLU."""
    model = tiny().double().train()
    twin = copy.deepcopy(model)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(twin, backend=counter, fullgraph=True)
    for size in sizes:
        x = image(size, dtype=torch.float64)
        actual = training_step(compiled, twin, x)
        assert_close(actual, training_step(model, model, x), rtol=1e-7, atol=1e-9)
    return counter.frame_count


def steps_with_autocast(backend):
    """A step compiled, the same step eager, and the same in float64."""
    model = tiny().train()
    twin, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    compiled = torch.compile(twin, backend=backend, fullgraph=True)
    actual = training_step(compiled, twin, image((64, 64)), autocast=True)
    assert actual["output"].dtype == torch.bfloat16
    expected = training_step(model, model, image((64, 64)), autocast=True)
    return actual, expected, training_step(exact, exact, image((64, 64), dtype=torch.float64))


def distance(one, other):
    """Of all results of two steps together."""
    squares = [(one[name].double() - other[name].double()).square().sum() for name in one]
    return float(torch.stack(squares).sum().sqrt())


def test_compiled_training():
    # aot_eager traces forward and backward whole, but needs no C++ compiler.
    # A graph for the first size and one for any: a table that fits must not ask for another.
    assert assert_compiles("aot_eager", SIZES) == 2


def test_compiled_training_with_autocast():
    # The same operations in the same order.
    actual, expected, _ = steps_with_autocast("aot_eager")
    assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.slow
def test_compiled_training_by_inductor(apart):
    apart(lambda: assert_compiles("inductor", SIZES))


@pytest.mark.slow
def test_compiled_training_by_inductor_with_autocast(apart):
    def check():
        # Fused operations round elsewhere, which tta a ReLU here and there: no further from
        # the truth than eager ones.
        actual, expected, exact = steps_with_autocast("inductor")
        assert distance(actual, exact) <= 1.5 * distance(expected, exact)

    apart(check)


def namespaces(program):
    """Of all operators in the graph."""
    targets = {node.target for node in program.graph.nodes}
    return {target.namespace for target in targets if isinstance(target, OpOverload)}


DYNAMIC = {"batch": Dim.DYNAMIC, "height": Dim.DYNAMIC, "width": Dim.DYNAMIC}
# Of whole strides, so that ranges can be given and are proved.
BOUNDED = {
    "batch": Dim("batch", max=64),
    "height": 32 * Dim("rows", min=2, max=32),
    "width": 32 * Dim("columns", min=2, max=32),
}


def export(model, dims):
    shapes = ({axis: dim for axis, dim in zip((0, 2, 3), dims.values(), strict=True) if dim},)
    return torch.export.export(model, (image((64, 96), batch=2),), dynamic_shapes=shapes)


def assert_same_outputs(program, model, sizes, batches):
    # An operator of ours would be unknown to every other program.
    assert namespaces(program) == {"aten"}
    exported = program.module()
    for size in sizes:
        for batch in batches:
            x = image(size, batch)
            assert_close(exported(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", ["relative", "absolute", "none"])
def test_exported_model_is_plain_operations(position):
    model = tiny(position=position).eval()
    program = export(model, {"batch": Dim("batch"), "height": None, "width": None})
    assert_same_outputs(program, model, [(64, 96)], batches=(1, 2, 5))


@pytest.mark.parametrize("position", ["relative", "absolute", "none"])
def test_exported_model_takes_any_size(position):
    model = tiny(position=position).eval()
    program = export(model, DYNAMIC)
    sizes = [(64, 96), (96, 64), (160, 96), (65, 131), (33, 48)]
    assert_same_outputs(program, model, sizes, batches=(1, 3))


def test_exported_model_takes_any_size_of_a_range():
    model = tiny().eval()
    program = export(model, BOUNDED)
    assert_same_outputs(program, model, [(64, 96), (96, 64), (160, 320)], batches=(3,))


@pytest.mark.parametrize(("size", "interpolates"), [((64, 64), False), ((64, 96), True)], ids=str)
def test_table_of_the_right_size_is_exported_as_it_is(size, interpolates):
    # The tables are made for 64 x 64: a model exported for that alone interpolates nothing.
    program = torch.export.export(tiny().eval(), (image(size),))
    names = {str(node.target) for node in program.graph.nodes}
    assert any("upsample" in name for name in names) == interpolates


@pytest.mark.parametrize("impl", ["chunked", "fused"])
def test_explicit_choice_is_exported_as_chosen(impl):
    model = tiny(attention_impl=impl).eval()
    program = torch.export.export(model, (image((64, 64)),))
    assert ("botvision" in namespaces(program)) == (impl == "chunked")
    x = image((64, 64))
    assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)
