"""The layers that are compared compute one function, and its work is counted right."""

import sys
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from botvision.attention import IMPLEMENTATIONS, MultiHeadSelfAttention2d
from botvision.benchmark.attention_layers import (
    PEERS,
    attention_operations,
    layer_names,
    layer_title,
    prepare_layer,
)
from botvision.benchmark.measuring import FORWARD, PASSES, reason_of, run_pass

prepare = partial(prepare_layer, batch=2, heads=2, head_dim=8, dtype=torch.float64, device="cpu")

# Names of the projection and of the tables of rows and columns.
WEIGHTS = {
    "bottleneck-transformer-pytorch": ("to_qkv", "pos_emb.rel_height", "pos_emb.rel_width"),
    "timm": ("qkv", "pos_embed.height_rel", "pos_embed.width_rel"),
    "sdpa-mask": ("ours.qkv", "ours.position.height", "ours.position.width"),
}


def test_ours_come_first():
    names = layer_names()
    assert names[0] == "auto"
    assert names[-len(PEERS) :] == list(PEERS)
    assert set(names) == {"auto", *IMPLEMENTATIONS, *PEERS}
    assert len({layer_title(name) for name in names}) == len(names)


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
@pytest.mark.parametrize("name", PEERS)
def test_peers_compute_our_function(name, size):
    ours, x = prepare("reference", size)
    theirs, _ = prepare(name, size)
    projection, height, width = WEIGHTS[name]
    state = {
        f"{projection}.weight": ours.qkv.weight,
        height: ours.position.height,
        width: ours.position.width,
    }
    assert theirs.state_dict().keys() == state.keys()
    theirs.load_state_dict(state)
    out = theirs(x)
    torch.testing.assert_close(out, ours(x))
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(ours(x).sum(), x)[0])


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("name", ["auto", "reference", "chunked", *PEERS])
def test_available_in_half_precision(name, pass_name):
    layer, x = prepare(name, (3, 5), dtype=torch.bfloat16)
    assert {p.dtype for p in layer.parameters()} == {x.dtype} == {torch.bfloat16}
    assert x.shape == (2, 16, 3, 5)
    assert x.requires_grad
    run_pass(layer, x, pass_name)


def test_not_installed(monkeypatch):
    package = "bottleneck_transformer_pytorch"
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.{package}", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught:
        prepare(package.replace("_", "-"), (4, 4))
    assert reason_of(caught.value) == "not installed"


def test_not_available_here(monkeypatch):
    def gpu_only(operands):
        raise ValueError(f"impl 'gpu': expected a CUDA device, got {operands.q.device}")

    monkeypatch.setitem(IMPLEMENTATIONS, "gpu", gpu_only)
    assert "gpu" in layer_names()
    with pytest.raises(ValueError, match="gpu") as caught:
        run_pass(*prepare("gpu", (4, 4)), FORWARD)
    assert reason_of(caught.value) == "not available: impl 'gpu': expected a CUDA device, got cpu"


def counted(function):
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 7)])
def test_operations_against_torchs_count(height, width):
    batch, heads, dim = 2, 2, 8
    x = torch.randn(batch, heads * dim, height, width, requires_grad=True)
    layer = MultiHeadSelfAttention2d(heads * dim, heads, position="none", impl="reference")
    # Positions by their definition: each query with a vector for each row and for each column.
    q = torch.randn(batch, heads, height * width, dim, requires_grad=True)
    rows = torch.randn(height * width, height, dim, requires_grad=True)
    columns = torch.randn(height * width, width, dim, requires_grad=True)

    def forward():
        logits = [torch.einsum("bhnd,nkd->bhnk", q, table) for table in (rows, columns)]
        return layer(x).sum() + sum(each.sum() for each in logits)

    operations = attention_operations(batch, heads, dim, (height, width))
    assert counted(forward) == operations
    assert counted(lambda: forward().backward()) == 3 * operations
