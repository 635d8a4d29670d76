"""Batches: their split over processes and time, and the order of the data, also over shards."""

import itertools
import math
from itertools import chain, cycle, islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from botvision.training.sampling import LANES, WINDOW, BatchPlan, StepBatches, shard_order
from botvision.training.settings import TrainingSettings


def plan(batch, processes=1, at_once=None, **others):
    chosen = TrainingSettings(batch_size=batch, micro_batch_size=at_once, **others)
    return BatchPlan.of(chosen, processes)


def indices(batch):
    return [index for _, index in batch]


@pytest.mark.parametrize(
    ("batch", "processes", "at_once", "expected"),
    [
        (8, 1, None, (8, 1)),
        (8, 1, 2, (2, 4)),
        (8, 2, 2, (2, 2)),
        (8, 4, 2, (2, 1)),
        (8, 8, 2, (1, 1)),  # its share is smaller
        (64, 8, 3, (3, 3)),  # 72: as near as it gets
        (4, 16, None, (1, 1)),  # more processes than images
    ],
)
def test_split_of_a_batch(batch, processes, at_once, expected):
    found = plan(batch, processes, at_once)
    assert (found.micro_batch_size, found.accumulation) == expected
    assert found.batch_size == math.prod(expected) * processes


@settings(deadline=None, derandomize=True, database=None)
@given(st.integers(1, 600), st.integers(1, 64), st.none() | st.integers(1, 64))
def test_plan_is_near_the_recipes_batch_and_within_its_limit(batch, processes, at_once):
    found = plan(batch, processes, at_once)
    assert found.micro_batch_size <= (at_once or batch)
    # Half of what all processes take at a time is as far as it can be off.
    assert abs(found.batch_size - batch) <= max(found.micro_batch_size * processes / 2, processes)


@pytest.mark.parametrize(("optimizer", "power"), [("sgd", 1), ("adamw", 0.5)])
def test_learning_rate_follows_the_batch(optimizer, power):
    assert plan(16, optimizer=optimizer).lr_factor == 1
    scaled = plan(16, optimizer=optimizer, base_batch_size=64)
    assert scaled.lr_factor == pytest.approx(0.25**power)
    # And so where the recipe's batch cannot be had.
    odd = plan(64, 8, 3, optimizer=optimizer)
    assert odd.lr_factor == pytest.approx((72 / 64) ** power)
    both = plan(64, 8, 3, optimizer=optimizer, base_batch_size=16)
    assert both.lr_factor == pytest.approx((72 / 16) ** power)


def test_plan_in_a_line():
    plain = TrainingSettings(batch_size=8, micro_batch_size=2)
    assert BatchPlan.of(plain, 2).describe(plain) == (
        "batch of 8: 2 images at once x 2 processes x 2 accumulated"
    )
    other = TrainingSettings(
        batch_size=64, micro_batch_size=3, base_batch_size=16, learning_rate=0.1
    )
    assert BatchPlan.of(other, 8).describe(other) == (
        "batch of 72: 3 images at once x 8 processes x 3 accumulated (the recipe's 64 cannot be "
        "split so); learning rate 0.45, scaled in proportion from 0.1 for a batch of 16"
    )
    adamw = other.model_copy(update={"optimizer": "adamw"})
    assert "0.2121, scaled with the square root" in BatchPlan.of(adamw, 8).describe(adamw)


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 60),
    st.integers(1, 24),
    st.integers(1, 5),
    st.none() | st.integers(1, 6),
    st.integers(1, 3),
)
def test_every_image_once_an_epoch_however_it_is_split(length, batch, processes, at_once, epochs):
    split = plan(batch, processes, at_once)
    ranks = [StepBatches(length, split, epochs, seed=3, process=p) for p in range(processes)]
    steps = ranks[0].steps_per_epoch
    drawn = [list(each) for each in ranks]
    assert all(len(parts) == len(ranks[0]) for parts in drawn)
    assert len(ranks[0]) == epochs * steps * split.accumulation
    together = [part for parts in zip(*drawn, strict=True) for part in parts]
    assert {len(part) for part in together} == {split.micro_batch_size}
    keys = [key for part in together for key in part]
    for epoch in range(epochs):
        order = [index for e, index in keys if e == epoch]
        assert len(order) == steps * split.batch_size
        assert sorted(order[:length]) == list(range(length))
        # What is missing in the last batch comes from the beginning, in order.
        assert order[length:] == list(islice(cycle(order[:length]), len(order) - length))
    # One process sees the same images in the same order.
    alone = BatchPlan(split.batch_size, 1, 1, 1.0)
    whole = list(StepBatches(length, alone, epochs, seed=3))
    assert [key for part in whole for key in part] == keys


def test_epochs_and_seeds_differ():
    drawn = list(StepBatches(50, plan(50), 2, seed=0))
    other = list(StepBatches(50, plan(50), 1, seed=1))
    assert indices(drawn[0]) != indices(drawn[1])
    assert indices(drawn[0]) != indices(other[0])
    assert list(StepBatches(50, plan(50), 2, seed=0)) == drawn


@pytest.mark.parametrize("first", range(13))
@pytest.mark.parametrize("at_once", [None, 1])
def test_first_step_goes_on_with_the_same_sequence(first, at_once):
    split = plan(3, at_once=at_once)
    whole = list(StepBatches(11, split, 3, seed=5))
    assert len(whole) == 12 * split.accumulation
    rest = StepBatches(11, split, 3, seed=5, first_step=first)
    assert len(rest) == (12 - first) * split.accumulation
    assert list(rest) == whole[first * split.accumulation :]


@pytest.mark.parametrize("first", [0, 1, 5, 6, 17])
def test_shards_however_many_processes_and_wherever_it_goes_on(first):
    lengths = (5, 1, 9, 9, 3, 7)
    items = {"length": sum(lengths), "shard_lengths": lengths, "seed": 5}
    whole = list(StepBatches(plan=plan(6), epochs=3, **items))
    assert len(whole) == 3 * 6
    for epoch in range(3):
        keys = [key for part in whole[6 * epoch : 6 * epoch + 6] for key in part]
        assert {index for _, index in keys} == set(range(34))
        assert {each for each, _ in keys} == {epoch}
    for processes in (2, 3):
        split = plan(6, processes)
        ranks = [
            list(StepBatches(plan=split, epochs=3, process=p, first_step=first, **items))
            for p in range(processes)
        ]
        together = [list(chain(*parts)) for parts in zip(*ranks, strict=True)]
        assert together == whole[first:]


def test_run_that_ends_early_begins_as_the_whole_one():
    whole = list(StepBatches(11, plan(3), 3, seed=5))
    early = StepBatches(11, plan(3), 3, seed=5, max_steps=5)
    assert (early.total_steps, early.steps_per_epoch) == (5, 4)
    assert list(early) == whole[:5]
    assert list(StepBatches(11, plan(3), 3, seed=5, max_steps=99)) == whole
    assert list(StepBatches(11, plan(3), 3, seed=5, max_steps=5, first_step=5)) == []


def test_iterating_twice_gives_the_same():
    batches = StepBatches(11, plan(3), 2, seed=0)
    assert list(batches) == list(batches)


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
