"""Neither chunked nor fused attention holds N x N numbers, neither forward nor backward."""

from itertools import pairwise

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from botvision.attention import MultiHeadSelfAttention2d, chunked, decomposed_attention


class Memory:
    """What torch's allocator was asked for while a function ran, in bytes.

    Operators are seen from inside, which a dispatch mode cannot do.
    """

    def __init__(self, function):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            self.result = function()
        events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
        changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
        self.allocations = [change for change in changes if change > 0]
        self.largest = max(self.allocations)
        held = 0
        self.peak = 0
        for change in changes:
            held += change
            self.peak = max(self.peak, held)


def memory_of_step(inputs, size, impl):
    """Of the forward and of the backward pass."""
    forward = Memory(lambda: decomposed_attention(**inputs, size=size, impl=impl))
    loss = forward.result.sum()
    return forward, Memory(loss.backward)


def set_blocks(monkeypatch, rows):
    """Blocks of one group and some rows, so that small maps need many."""
    monkeypatch.setitem(chunked._BLOCK_ELEMENTS, "cpu", 1)
    monkeypatch.setattr(chunked, "_SMALLEST_BLOCK_ROWS", rows)


# 13 equal blocks of at most 512 rows, the fewest that a map of this size is cut into.
LARGE = (80, 80)
N = 80 * 80
FLOAT = 4
BLOCK = 493 * N * FLOAT


@pytest.fixture
def large_inputs(make_inputs):
    return make_inputs(LARGE, batch=1, heads=1, dim=2, dtype=torch.float32)


def test_recorder_sees_the_reference_make_n_by_n(make_inputs):
    inputs = make_inputs((16, 16), batch=1, heads=1)
    forward, backward = memory_of_step(inputs, (16, 16), "reference")
    assert forward.largest == backward.largest == 256**2 * 8
    assert forward.peak >= 2 * forward.largest


def test_stays_within_the_block_budget(large_inputs):
    assert BLOCK < N**2 * FLOAT / 10
    forward, backward = memory_of_step(large_inputs, LARGE, "chunked")
    # Equality would also catch a step that silently stopped working in blocks.
    assert forward.largest == backward.largest == BLOCK
    # The backward pass needs a second buffer. What is left is of the size of the inputs.
    inputs = sum(t.numel() for t in large_inputs.values()) * FLOAT
    assert forward.peak <= BLOCK + inputs
    assert backward.peak <= 2 * BLOCK + 2 * inputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_blocks_share_their_buffers(dtype, monkeypatch, make_inputs):
    # A map of one column, so that no bias is as large as a block.
    n, rows = 256, 32
    inputs = make_inputs((n, 1), batch=2, heads=2, dim=2, bias_h=False, dtype=dtype)
    set_blocks(monkeypatch, rows)
    forward, backward = memory_of_step(inputs, (n, 1), "chunked")
    assert forward.allocations.count(rows * n * FLOAT) == 1
    assert backward.allocations.count(rows * n * FLOAT) == 2  # probabilities and their gradient
    if dtype == torch.bfloat16:  # and one to narrow them
        for memory in (forward, backward):
            assert memory.allocations.count(rows * n * dtype.itemsize) == 1


def test_grows_with_n(monkeypatch, make_inputs):
    set_blocks(monkeypatch, 8)
    peaks = []
    for n in (256, 512, 1024):
        inputs = make_inputs((1, n), batch=2, heads=2, dim=8, bias_w=False)
        peaks.append([memory.peak for memory in memory_of_step(inputs, (1, n), "chunked")])
    for shorter, longer in pairwise(peaks):
        for one, other in zip(shorter, longer, strict=True):
            assert other <= 2.05 * one


def test_saves_nothing_but_the_inputs_for_backward(large_inputs):
    saved = []

    def pack(tensor):
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        decomposed_attention(**large_inputs, size=LARGE, impl="chunked")
    assert sorted(saved) == sorted(t.data_ptr() for t in large_inputs.values())


@pytest.mark.parametrize("position", ["relative", "absolute", "none"])
def test_the_layer_keeps_it_so(position):
    layer = MultiHeadSelfAttention2d(8, 1, position=position, position_size=LARGE)
    x = torch.randn(1, 8, *LARGE, requires_grad=True)
    memory = Memory(lambda: layer(x).sum().backward())
    assert memory.largest == BLOCK


def test_fused_attention_on_the_cpu_is_as_frugal(large_inputs):
    # No kernel here takes N x N: the widened heads are the largest tensors.
    forward, backward = memory_of_step(large_inputs, LARGE, "fused")
    widened = N * (2 + sum(LARGE)) * FLOAT
    assert max(forward.largest, backward.largest) <= 1.1 * widened
    assert max(forward.peak, backward.peak) < N**2 * FLOAT / 4


def test_weighted_attention_holds_chunks_of_rows():
    layer = MultiHeadSelfAttention2d(8, 2, position="none")
    x, weights = torch.randn(1, 8, *LARGE), torch.full(LARGE, 1 / N)
    with torch.inference_mode():
        memory = Memory(lambda: layer.weighted_attention(x, weights))
    chunk = 2**20 * FLOAT
    assert memory.largest <= chunk
    assert memory.peak < 7 * chunk < 2 * N**2 * FLOAT / 10
