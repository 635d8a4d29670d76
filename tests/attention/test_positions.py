"""Position tables: what their logits depend on, and how they follow the map's size."""

import pytest
import torch
from torch.testing import assert_close

from botvision.attention import AbsolutePosition2d, RelativePosition2d, resize_position_table

SIZE = (3, 5)


def constant_queries(size, dim=4, value=1.0):
    return torch.full((1, 1, size[0] * size[1], dim), value)


def test_relative_logits_are_the_tables_rows():
    position = RelativePosition2d(4, SIZE)
    q = torch.randn(2, 3, 15, 4)
    bias_h, bias_w = position(q, SIZE)
    assert bias_h.shape == (2, 3, 15, 3)
    assert bias_w.shape == (2, 3, 15, 5)
    for y, x in [(0, 0), (0, 4), (1, 2), (2, 0), (2, 3)]:
        query = q[1, 2, y * 5 + x]
        for key_row in range(3):
            expected = query @ position.height[key_row - y + 2]
            assert_close(bias_h[1, 2, y * 5 + x, key_row], expected)
        for key_column in range(5):
            expected = query @ position.width[key_column - x + 4]
            assert_close(bias_w[1, 2, y * 5 + x, key_column], expected)


@pytest.mark.parametrize("size", [SIZE, (4, 4), (7, 2)], ids=str)
def test_relative_logits_depend_on_offsets_only(size):
    # With the same content everywhere, all pairs of positions an offset apart share a logit,
    # on the tables' own size and on interpolated ones.
    position = RelativePosition2d(4, SIZE)
    bias_h, bias_w = (b[0, 0].unflatten(0, size) for b in position(constant_queries(size), size))
    height, width = size
    for offset in range(-height + 1, height):
        rows = torch.stack(
            [bias_h[y, :, y + offset] for y in range(height) if 0 <= y + offset < height]
        )
        assert_close(rows, rows[:1, :1].expand_as(rows))
    for offset in range(-width + 1, width):
        columns = torch.stack(
            [bias_w[:, x, x + offset] for x in range(width) if 0 <= x + offset < width]
        )
        assert_close(columns, columns[:1, :1].expand_as(columns))
    # Another offset is another logit.
    assert bias_h[0, 0].unique().numel() == height


def test_absolute_logits_depend_on_the_key_only():
    position = AbsolutePosition2d(4, SIZE)
    bias_h, bias_w = position(constant_queries(SIZE), SIZE)
    assert_close(bias_h[0, 0], position.height.sum(1).expand(15, 3))
    assert_close(bias_w[0, 0], position.width.sum(1).expand(15, 5))


@pytest.mark.parametrize("kind", [RelativePosition2d, AbsolutePosition2d])
def test_transposed_map_with_swapped_tables(kind):
    position, swapped = kind(4, SIZE), kind(4, SIZE[::-1])
    swapped.load_state_dict({"height": position.width, "width": position.height})
    q = torch.randn(2, 3, 15, 4)

    def transpose(tensor):
        return tensor.unflatten(2, SIZE).transpose(2, 3).flatten(2, 3)

    bias_h, bias_w = position(q, SIZE)
    other_h, other_w = swapped(transpose(q), SIZE[::-1])
    assert_close(other_w, transpose(bias_h))
    assert_close(other_h, transpose(bias_w))


@pytest.mark.parametrize("kind", [RelativePosition2d, AbsolutePosition2d])
@pytest.mark.parametrize("size", [SIZE, (4, 2)], ids=str)
def test_logits_are_linear_in_the_scale(kind, size):
    position = kind(4, SIZE).double()
    q = torch.randn(2, 3, size[0] * size[1], 4, dtype=torch.float64)
    plain = position(q, size)
    for scale in (0.0, 0.25, -3.0):
        assert_close(position(q, size, scale), tuple(scale * bias for bias in plain))
        # As the paper's authors do it: scaled queries.
        assert_close(position(q, size, scale), position(scale * q, size))


def test_initial_scale_is_that_of_the_authors():
    torch.manual_seed(0)
    for kind, rows in [(RelativePosition2d, (79, 99)), (AbsolutePosition2d, (40, 50))]:
        position = kind(64, (40, 50))
        assert (len(position.height), len(position.width)) == rows
        for table in (position.height, position.width):
            assert table.std().item() == pytest.approx(64**-0.5, rel=0.05)
            assert table.mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("relative", [True, False])
def test_the_same_length_is_identity(relative):
    table = torch.randn(7, 4)
    assert resize_position_table(table, 7, relative=relative) is table


@pytest.mark.parametrize("length", [3, 9, 13, 27])
def test_relative_center_and_ends_stay(length):
    table = torch.randn(9, 4)
    resized = resize_position_table(table, length, relative=True)
    assert resized.shape == (length, 4)
    assert_close(resized[0], table[0])
    assert_close(resized[-1], table[-1])
    assert_close(resized[length // 2], table[4])  # offset 0: how a position sees itself


def test_relative_offsets_are_stretched_with_the_map():
    # A table that holds its own offsets, -4 .. 4, read for a map twice less one as long.
    table = torch.arange(-4.0, 5.0).unsqueeze(1)
    resized = resize_position_table(table, 17, relative=True)
    assert_close(resized, torch.linspace(-4, 4, 17).unsqueeze(1))


def test_absolute_table_is_read_at_cell_centers():
    # Centers of 2 cells over 4 lie between cells 0 and 1, and between cells 2 and 3.
    table = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    resized = resize_position_table(table, 2, relative=False)
    assert_close(resized, torch.tensor([[0.5], [2.5]]))


def test_length_of_one():
    table = torch.arange(5.0).unsqueeze(1)
    assert_close(resize_position_table(table, 1, relative=True), torch.tensor([[2.0]]))
    assert_close(resize_position_table(table, 1, relative=False), torch.tensor([[2.0]]))
    for relative in (True, False):
        grown = resize_position_table(table[2:3], 5, relative=relative)
        assert_close(grown, torch.full((5, 1), 2.0))


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("length", [1, 3, 5, 11])
def test_resizing_is_differentiable_and_keeps_the_dtype(length, relative):
    table = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)

    def resize(table):
        return resize_position_table(table, length, relative=relative)

    assert resize(table).dtype == torch.float64
    assert torch.autograd.gradcheck(resize, table)


@pytest.mark.parametrize("kind", [RelativePosition2d, AbsolutePosition2d])
@pytest.mark.parametrize("size", [SIZE, (1, 1), (1, 6), (9, 1), (4, 2)], ids=str)
def test_any_map_and_a_gradient_for_both_tables(kind, size):
    position = kind(4, SIZE)
    n = size[0] * size[1]
    bias_h, bias_w = position(torch.randn(1, 2, n, 4), size)
    assert bias_h.shape == (1, 2, n, size[0])
    assert bias_w.shape == (1, 2, n, size[1])
    (bias_h.sum() + bias_w.sum()).backward()
    assert position.height.grad.abs().sum() > 0
    assert position.width.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", [RelativePosition2d, AbsolutePosition2d])
def test_state_dict_round_trip(kind):
    position, other = kind(4, SIZE), kind(4, SIZE)
    state = position.state_dict()
    assert set(state) == {"height", "width"}
    other.load_state_dict(state)
    q = torch.randn(1, 2, 15, 4)
    assert_close(other(q, SIZE), position(q, SIZE), rtol=0, atol=0)
