"""The order of the training data: permutations, resuming, several processes."""

import pytest

from botvision.training.sampling import StepBatches


def indices(batch):
    return [index for _, index in batch]


@pytest.mark.parametrize(("length", "batch"), [(12, 4), (13, 4), (3, 4), (1, 3), (7, 7)])
def test_each_epoch_is_a_permutation_filled_up(length, batch):
    batches = StepBatches(length, batch, 3, seed=0)
    assert batches.steps_per_epoch == -(-length // batch)
    assert batches.total_steps == len(batches) == 3 * batches.steps_per_epoch
    drawn = list(batches)
    assert len(drawn) == len(batches)
    assert all(len(each) == batch for each in drawn)
    for epoch in range(3):
        part = drawn[epoch * batches.steps_per_epoch : (epoch + 1) * batches.steps_per_epoch]
        keys = [key for each in part for key in each]
        assert {e for e, _ in keys} == {epoch}
        order = [index for _, index in keys]
        assert sorted(order[:length]) == list(range(length))
        assert order[length:] == (order[:length] * batch)[: len(order) - length]


def test_epochs_and_seeds_differ():
    drawn = list(StepBatches(50, 50, 2, seed=0))
    other = list(StepBatches(50, 50, 1, seed=1))
    assert indices(drawn[0]) != indices(drawn[1])
    assert indices(drawn[0]) != indices(other[0])
    assert list(StepBatches(50, 50, 2, seed=0)) == drawn


@pytest.mark.parametrize("first", range(13))
def test_first_step_goes_on_with_the_same_sequence(first):
    whole = list(StepBatches(11, 3, 3, seed=5))
    assert len(whole) == 12
    rest = StepBatches(11, 3, 3, seed=5, first_step=first)
    assert len(rest) == 12 - first
    assert list(rest) == whole[first:]


def test_iterating_twice_gives_the_same():
    batches = StepBatches(11, 3, 2, seed=0)
    assert list(batches) == list(batches)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batch_of_one(processes):
    one = list(StepBatches(22, 8, 3, seed=2, first_step=2))
    parts = [
        list(
            StepBatches(22, 8 // processes, 3, seed=2, first_step=2, process=p, processes=processes)
        )
        for p in range(processes)
    ]
    assert [[key for part in step for key in part] for step in zip(*parts, strict=True)] == one
