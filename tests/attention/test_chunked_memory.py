"""The chunked implementation never holds N x N numbers, neither forward nor backward."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from botvision.attention import MultiHeadSelfAttention2d, chunked, decomposed_attention


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation's output, or its storage, holds."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                stored = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, stored)
        return out


def largest_of_step(inputs, size, impl):
    """Most elements of a tensor made in the forward and in the backward pass."""
    with LargestTensor() as forward:
        out = decomposed_attention(**inputs, size=size, impl=impl)
    with LargestTensor() as backward:
        out.sum().backward()
    return forward.elements, backward.elements


@pytest.fixture
def inputs_64x64(make_inputs):
    return make_inputs((64, 64), batch=1, heads=1, dim=8, dtype=torch.float32)


def test_recorder_sees_the_reference_make_n_by_n(make_inputs):
    inputs = make_inputs((16, 16), batch=1, heads=1)
    assert largest_of_step(inputs, (16, 16), "reference") == (256**2, 256**2)


def test_stays_within_the_block_budget(inputs_64x64):
    budget = chunked._BLOCK_ELEMENTS["cpu"]
    assert budget < 4096**2 / 10
    forward, backward = largest_of_step(inputs_64x64, (64, 64), "chunked")
    # Equality would also catch a step that silently stopped working in blocks.
    assert forward == budget
    assert backward == budget


def test_grows_with_n(monkeypatch, make_inputs):
    monkeypatch.setattr(chunked, "_BLOCK_ELEMENTS", {"cpu": 1, "cuda": 1})
    monkeypatch.setattr(chunked, "_SMALLEST_BLOCK_ROWS", 8)
    for side in (8, 16, 32):
        # One row of the map wide, so that the biases do not hide the logits.
        inputs = make_inputs((1, side * side), batch=2, heads=2, dim=8, bias_w=False)
        n = side * side
        assert max(largest_of_step(inputs, (1, n), "chunked")) <= max(8 * n, 2 * 2 * 8 * n)


def test_saves_nothing_n_by_n_for_backward(inputs_64x64):
    saved = []

    def pack(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        decomposed_attention(**inputs_64x64, size=(64, 64), impl="chunked")
    given = sum(t.numel() for t in inputs_64x64.values())
    output_and_log_sum_exp = 4096 * (8 + 1)
    assert sum(saved) == given + output_and_log_sum_exp


@pytest.mark.parametrize("position", ["relative", "absolute", "none"])
def test_the_layer_keeps_it_so(position):
    layer = MultiHeadSelfAttention2d(8, 1, position=position, position_size=(64, 64))
    x = torch.randn(1, 8, 64, 64, requires_grad=True)
    with LargestTensor() as recorder:
        layer(x).sum().backward()
    assert recorder.elements == chunked._BLOCK_ELEMENTS["cpu"]
