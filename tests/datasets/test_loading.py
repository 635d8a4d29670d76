"""Reading in workers: the same batches, one-line errors, and workers that die."""

import os
import signal
import time

import pytest
import torch
from torch.utils.data import Dataset

from botvision.datasets.loading import DataWorkerError, load_batches
from botvision.errors import BotvisionError


class Squares(Dataset):
    """Squares; 13 cannot be read, and 99 kills whoever reads it."""

    def __getitem__(self, key):
        if key == 13:
            raise BotvisionError("image 13: truncated; delete it")
        if key == 99:
            time.sleep(0.5)  # what it has read before is on its way
            os.kill(os.getpid(), signal.SIGKILL)
        return key * key, os.getpid(), [signal.getsignal(s) for s in (signal.SIGINT, 15)]


def load(batches, num_workers):
    return load_batches(Squares(), batches, collate=list, num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_in_their_order(num_workers):
    found = list(load([[1, 2], [3], [4, 5]], num_workers))
    assert [[square for square, _, _ in batch] for batch in found] == [[1, 4], [9], [16, 25]]
    owners = {owner for batch in found for _, owner, _ in batch}
    assert (os.getpid() in owners) is (num_workers == 0)


def test_workers_ignore_what_asks_the_run_to_stop():
    ((_, _, handlers),) = next(load([[1]], 1))
    assert handlers == [signal.SIG_IGN] * 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_error_of_an_item_is_its_own_line(num_workers):
    with pytest.raises(BotvisionError) as raised:
        list(load([[1], [13]], num_workers))
    assert str(raised.value) == "image 13: truncated; delete it"


def test_killed_worker_is_one_line():
    began = time.monotonic()
    with pytest.raises(DataWorkerError) as raised:
        list(load([[1], [99], [2]], 1))
    assert time.monotonic() - began < 30
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("a data worker died, possibly out of memory (")
    assert message.endswith("; lower training.num_workers")


class Cut:
    """Handed over by a worker that dies meanwhile: unpickling asks it for the tensor in vain."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return _fail, (self.error,)


def _fail(error):
    raise error


class Failing(Dataset):
    def __getitem__(self, key):
        if isinstance(key, RuntimeError):
            raise key
        return Cut(key)


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "reset"), OSError("gone")])
def test_worker_that_dies_while_it_hands_over_is_one_line(error):
    with pytest.raises(
        DataWorkerError, match=r"a data worker died, .*; lower training\.num_workers$"
    ):
        list(load_batches(Failing(), [[error]], collate=list, num_workers=1))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_error_of_a_living_worker_is_its_own(num_workers):
    with pytest.raises(RuntimeError, match="wrong shape") as raised:
        list(
            load_batches(
                Failing(), [[RuntimeError("wrong shape")]], collate=list, num_workers=num_workers
            )
        )
    assert not isinstance(raised.value, DataWorkerError)


@pytest.fixture
def no_handler():
    """As in a program that has no other loader: torch's handler stays once it is there."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


def test_death_of_a_worker_is_an_error_of_waiting_for_data_alone(no_handler):
    """torch raises it wherever the process happens to be: in a step, or in saving."""
    batches = load([[1], [2], [99], [3], [4], [5]], 1)
    assert next(batches)[0][0] == 1
    with torch.no_grad():
        end = time.monotonic() + 2
        while time.monotonic() < end:  # the worker dies in the meantime
            torch.ones(3).sum()
    assert next(batches)[0][0] == 4
    with pytest.raises(DataWorkerError):
        next(batches)


def test_other_errors_are_left_alone():
    class Broken(Squares):
        def __getitem__(self, key):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(load_batches(Broken(), [[1]], collate=list, num_workers=0))
