"""The order over shards: complete, random, few shards at a time, and each machine its own."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from botvision.training.sampling import LANES, WINDOW, shard_order


def drawn(lengths, batch_size, seed=0):
    steps = -(-sum(lengths) // batch_size)
    generator = torch.Generator().manual_seed(seed)
    return shard_order(lengths, steps, batch_size, generator)


def shards_of(items, length):
    return {item // length for item in items}


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 40))
def test_every_item_once_and_whole_batches(lengths, batch_size):
    order = drawn(lengths, batch_size)
    total = sum(lengths)
    assert len(order) == -(-total // batch_size) * batch_size
    counts = torch.bincount(torch.tensor(order), minlength=total)
    assert len(counts) == total
    least, more = divmod(len(order), total)
    assert counts.min() == least
    assert (counts == least + 1).sum() == more
    assert counts.max() <= least + 1


def test_seeds_differ_and_one_seed_does_not():
    lengths = [20] * 64
    assert drawn(lengths, 16) == drawn(lengths, 16)
    assert drawn(lengths, 16) != drawn(lengths, 16, seed=1)


@pytest.mark.parametrize("machines", [2, 4, 8])
def test_machines_read_shards_of_their_own(machines):
    order, batch, length = drawn([20] * 64, 16), 16, 20
    share = batch // machines
    seen = []
    for machine in range(machines):
        own = [
            item
            for first in range(machine * share, len(order), batch)
            for item in order[first : first + share]
        ]
        seen.append(shards_of(own, length))
        # The one more is cut in two by the bounds of the lanes.
        assert len(seen[-1]) <= 64 // machines + 1
    assert set().union(*seen) == set(range(64))


def test_few_shards_are_needed_at_a_time():
    length, count, batch = 20, 400, 16
    order = drawn([length] * count, batch)
    first, last = {}, {}
    for place, item in enumerate(order):
        shard = item // length
        first.setdefault(shard, place)
        last[shard] = place
    for place in range(0, len(order), batch):
        needed = sum(first[shard] <= place <= last[shard] for shard in first)
        assert needed <= LANES * (WINDOW + 2)
    # And the first batches do not wait for all of those.
    assert len(shards_of(order[: 2 * batch], length)) <= 2 * LANES


def test_neighbors_in_a_shard_are_not_neighbors_in_the_order():
    length, batch = 50, 8
    order = drawn([length] * 200, batch)
    lane = order[0::batch]
    follows = sum(b == a + 1 for a, b in itertools.pairwise(lane))
    assert follows < len(lane) / 50
    # A batch's worth of a lane holds items of many shards.
    middle = lane[len(lane) // 2 :][:WINDOW]
    assert len(shards_of(middle, length)) >= WINDOW // 2
