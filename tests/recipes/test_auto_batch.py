"""``--auto-batch``: the search over a modeled memory, and one real run."""

import math
import multiprocessing
import os

import pytest
import torch

from botvision.errors import BotvisionError
from botvision.recipes import auto_batch, step_memory
from botvision.recipes.auto_batch import _search, with_largest_batch
from botvision.recipes.step_memory import StepCost, free_memory, measured_steps
from botvision.training.sampling import BatchPlan

MIB = 2**20
CPU = torch.device("cpu")


class Memory:
    """Steps that cost ``base + slope * images`` bytes; beyond ``killed`` the process ends."""

    def __init__(self, base, slope, *, killed=math.inf, seconds=0.0, at_least=1):
        self.base, self.slope, self.killed = base, slope, killed
        self.seconds, self.at_least = seconds, at_least
        self.asked = []

    def needed(self, images):
        return self.base + self.slope * images

    def take(self, images):
        self.asked.append(images)
        if images < self.at_least:
            return "expected more than one image"
        if self.needed(images) > self.killed:
            return None
        return StepCost(self.needed(images), self.seconds * images)


def divisors(share):
    return [size for size in range(1, share + 1) if share % size == 0]


@pytest.mark.parametrize("share", [1, 7, 16, 24, 64])
@pytest.mark.parametrize("patience", [math.inf, 5.0])
@pytest.mark.parametrize("killed", [math.inf, 990])
@pytest.mark.parametrize("seconds", [0.0, 1.0])
@pytest.mark.parametrize("room", [109, 110, 111, 129, 130, 500, 2000])
def test_the_largest_that_fits(share, patience, killed, seconds, room):
    memory = Memory(100, 10, killed=killed, seconds=seconds)
    found = _search(divisors(share), room, memory.take, patience=patience)
    limit = room if seconds and patience == 5 else min(room, killed)
    fitting = [size for size in divisors(share) if memory.needed(size) <= limit]
    assert found.images == max(fitting, default=0)
    assert found.failure is None
    assert memory.asked == sorted(set(memory.asked))


def test_a_step_that_would_be_killed_is_not_taken_on_the_cpu():
    memory = Memory(100, 10, seconds=0.01)
    assert _search(divisors(64), 200, memory.take, patience=20).images == 8
    assert memory.asked == [1, 2, 4, 8]
    memory.asked.clear()
    assert _search(divisors(64), 200, memory.take, patience=math.inf).images == 8
    assert memory.asked == [1, 2, 4, 8, 16]  # a GPU gives an error, which does no harm


def test_steps_that_take_too_long_are_estimated():
    memory = Memory(100, 10, seconds=1.0)
    found = _search(divisors(64), 450, memory.take, patience=5)
    assert memory.asked == [1, 2, 4]
    assert found.images == 32
    assert 32 not in found.costs


def test_sizes_that_cannot_be_taken_are_passed_over():
    found = _search(divisors(16), 1000, Memory(100, 10, at_least=2).take, patience=20)
    assert found.images == 16
    never = _search(divisors(16), 1000, Memory(100, 10, at_least=99).take, patience=20)
    assert (never.images, never.failure) == (0, "expected more than one image")


@pytest.fixture
def modeled(monkeypatch):
    """Puts a memory in place of the machine's."""
    from contextlib import contextmanager

    def put(memory, free):
        @contextmanager
        def steps(recipe, device):
            yield memory.take

        monkeypatch.setattr(auto_batch, "measured_steps", steps)
        monkeypatch.setattr(auto_batch, "free_memory", lambda device: free)

    return put


def test_the_batch_stays_the_same(make_recipe, modeled):
    modeled(Memory(100, 10), free=230)  # of which 80% are 184: 8.4 images
    recipe = make_recipe("training.batch_size=24", "training.micro_batch_size=2")
    notes = []
    chosen = with_largest_batch(recipe, note=notes.append)
    before, after = (BatchPlan.of(each.training, 1) for each in (recipe, chosen))
    assert (after.micro_batch_size, after.accumulation) == (8, 3)
    assert (after.batch_size, after.rate_factor) == (before.batch_size, before.rate_factor)
    same = chosen.training.model_copy(update={"micro_batch_size": 2})
    assert chosen.model_copy(update={"training": same}) == recipe
    (line,) = notes
    assert "micro_batch_size=8 of 24" in line
    assert "\n" not in line


def test_all_processes_take_the_smallest(make_recipe, modeled, monkeypatch):
    modeled(Memory(100, 10), free=10_000)
    other = _search(divisors(24), 150, Memory(100, 10).take, patience=20)
    assert other.images == 4
    monkeypatch.setattr(auto_batch, "gather_object", lambda mine: [*mine, other, None])
    chosen = with_largest_batch(make_recipe("training.batch_size=24"), note=lambda line: None)
    assert chosen.training.micro_batch_size == 4


def test_not_even_one(make_recipe, modeled):
    modeled(Memory(1000, 10), free=500)
    with pytest.raises(BotvisionError, match=r"not even 1 image.*model\.image_size"):
        with_largest_batch(make_recipe(), note=print)


def test_what_is_wrong_with_a_step_is_said(make_recipe, modeled):
    modeled(Memory(1, 1, at_least=99), free=500)
    with pytest.raises(BotvisionError, match="no step could be taken: expected more than one"):
        with_largest_batch(make_recipe(), note=print)


def test_sharded_is_refused(make_recipe):
    with pytest.raises(BotvisionError, match=r"training\.sharded"):
        with_largest_batch(make_recipe("training.sharded=true"), note=print)


def test_real_steps(make_recipe):
    recipe = make_recipe("training.ema_decay=0.9", "model.image_size=128")
    assert multiprocessing.active_children() == []
    with measured_steps(recipe, CPU) as take:
        costs = [take(images) for images in (1, 9)]
    assert multiprocessing.active_children() == []
    assert all(isinstance(cost, StepCost) for cost in costs), costs
    low, high = (cost.memory for cost in costs)
    assert 100 * MIB < low < high < 8000 * MIB
    # At the least, eight float images and the stem's outputs at half the side.
    assert high - low > 8 * (3 * 128**2 + 32 * 64**2) * 4


def test_a_process_that_is_killed_had_too_little_memory(make_recipe):
    with measured_steps(make_recipe(), CPU) as take:
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, 9)
        assert take(1) is None


def test_a_recipe_that_cannot_be_trained(make_recipe, tmp_path, monkeypatch):
    # In this process, where what the other one does can be seen.
    class Pipe:
        asked, answers = [1, 2], []

        def recv(self):
            if not self.asked:
                raise EOFError
            return self.asked.pop(0)

        def send(self, answer):
            self.answers.append(answer)

    monkeypatch.setattr(step_memory.signal, "signal", lambda *_: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    recipe = make_recipe(data=tmp_path / "none")
    step_memory._answer(Pipe(), recipe, CPU, torch.get_num_threads())
    assert len(Pipe.answers) == 2
    assert all("no such data folder" in answer for answer in Pipe.answers)
    assert not {"WORLD_SIZE", "RANK"} & os.environ.keys()


GROUPS = {
    "v2": ("0::/a/b", "a/b", "memory.max", "memory.current", "inactive_file"),
    "v2 as a container sees it": ("0::/x/y", ".", "memory.max", "memory.current", "inactive_file"),
    "v1": (
        *("9:cpu:/\n4:cpuset,memory:/a", "memory/a"),
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_limit_of_a_container(kind, tmp_path, monkeypatch):
    listing, folder, limit, usage, cached = GROUPS[kind]
    group = tmp_path / "groups" / folder
    group.mkdir(parents=True)
    (group / limit).write_text(f"{50 * MIB}\n")
    (group / usage).write_text(f"{30 * MIB}\n")
    (group / "memory.stat").write_text(f"anon 5\n{cached} {4 * MIB}\n")
    (tmp_path / "listing").write_text(listing + "\n")
    inner = step_memory._control_groups
    monkeypatch.setattr(
        step_memory,
        "_control_groups",
        lambda _: inner(tmp_path / "listing", tmp_path / "groups"),
    )
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_memory(CPU) == 24 * MIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert free_memory(CPU) == 12 * MIB
    (group / limit).write_text("max\n")
    assert free_memory(CPU) > 24 * MIB
