"""``--auto-batch``: the search over a modeled memory, and real steps."""

import pytest
import torch

from botvision.errors import BotvisionError
from botvision.recipes import auto_batch
from botvision.recipes.auto_batch import (
    _Found,
    _largest_estimated,
    _largest_tried,
    free_memory,
    with_largest_batch,
)
from botvision.training.sampling import BatchPlan

MIB = 2**20
CPU = torch.device("cpu")


class Memory:
    """Steps that take 100 + 10 bytes per image; a GPU of ``size`` bytes runs out of memory."""

    def __init__(self, size=10**9, at_least=1):
        self.size, self.at_least, self.asked = size, at_least, []
        self.held = self.peak = 100

    def take(self, images):
        self.asked.append(images)
        if images < self.at_least:
            raise ValueError("expected more than one image")
        if 100 + 10 * images > self.size:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return max(self.peak, 100 + 10 * images)


def divisors(part):
    return [size for size in range(1, part + 1) if part % size == 0]


@pytest.mark.parametrize("search", [_largest_tried, _largest_estimated])
@pytest.mark.parametrize("part", [1, 7, 24])
@pytest.mark.parametrize("room", [109, 110, 111, 170, 2000])
def test_the_largest_that_fits(search, part, room):
    found = search(Memory(), divisors(part), room)
    fitting = [size for size in divisors(part) if 100 + 10 * size <= room]
    assert found.images == max(fitting, default=0)
    assert found.failure is None
    assert found.memory == (100 + 10 * found.images if fitting else 0)


def test_a_gpu_starts_with_the_largest():
    memory = Memory(size=200)
    assert _largest_tried(memory, divisors(64), 10**6) == _Found(8, 180)
    assert memory.asked == [64, 32, 16, 8]


def test_a_cpu_takes_no_step_that_would_not_fit():
    memory = Memory()
    assert _largest_estimated(memory, divisors(64), 450) == _Found(32, 420)
    assert memory.asked == [1, 2]
    memory.asked.clear()
    assert _largest_estimated(memory, [1, 100], 450) == _Found(1, 110)
    assert memory.asked == [1]


def test_a_peak_before_the_steps_hides_no_memory():
    memory = Memory()
    memory.peak = 125  # from building the model
    assert _largest_estimated(memory, divisors(64), 450) == _Found(32, 420)
    assert memory.asked == [1, 2, 4, 8]
    assert _largest_estimated(memory, [1, 2], 450) == _Found(2, 125)


@pytest.mark.parametrize("search", [_largest_tried, _largest_estimated])
def test_sizes_that_cannot_be_taken_are_passed_over(search):
    assert search(Memory(at_least=2), divisors(16), 1000).images == 16
    never = search(Memory(at_least=99), divisors(16), 1000)
    assert never == _Found(failure="expected more than one image")


@pytest.fixture
def found(monkeypatch):
    """Gives a result in place of the process that searches."""

    def put(result):
        def search(*_):
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(auto_batch, "call_in_new_process", search)

    return put


def test_the_batch_stays_the_same(make_recipe, found):
    found(_Found(8, 180 * MIB))
    recipe = make_recipe("training.batch_size=24", "training.micro_batch_size=2")
    notes = []
    chosen = with_largest_batch(recipe, note=notes.append)
    before, after = (BatchPlan.of(each.training, 1) for each in (recipe, chosen))
    assert (after.micro_batch_size, after.accumulation) == (8, 3)
    assert (after.batch_size, after.lr_factor) == (before.batch_size, before.lr_factor)
    same = chosen.training.model_copy(update={"micro_batch_size": 2})
    assert chosen.model_copy(update={"training": same}) == recipe
    (line,) = notes
    assert "micro_batch_size=8 of 24; a step takes 0.18 of" in line


def test_all_processes_take_the_smallest(make_recipe, found, monkeypatch):
    found(_Found(24, 1))
    monkeypatch.setattr(auto_batch, "gather_object", lambda mine: [*mine, _Found(4, 1), None])
    chosen = with_largest_batch(make_recipe("training.batch_size=24"))
    assert chosen.training.micro_batch_size == 4


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (_Found(), r"not even a micro batch of 1.*model\.image_size"),
        (MemoryError("its process was killed"), r"not even a micro batch of 1"),
        (_Found(failure="expected two"), "no step could be taken: expected two"),
        (RuntimeError("no such data folder"), "no step could be taken: no such data folder"),
    ],
    ids=["too large", "killed", "no step", "no data"],
)
def test_mistakes(result, message, make_recipe, found):
    found(result)
    with pytest.raises(BotvisionError, match=message):
        with_largest_batch(make_recipe())


def test_sharded_is_refused(make_recipe):
    with pytest.raises(BotvisionError, match=r"training\.sharded"):
        with_largest_batch(make_recipe("training.sharded=true"))


def test_real_steps(make_recipe, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # torchrun's, which the process must not wait for
    monkeypatch.setenv("RANK", "1")
    recipe = make_recipe("training.ema_decay=0.9", "model.image_size=128")
    small, large, estimated = (
        auto_batch.call_in_new_process(auto_batch._search, recipe, CPU, sizes, 2**40)
        for sizes in ([1], [1, 9], [1, 5, 9])
    )
    assert (small.images, large.images, estimated.images) == (1, 9, 9)
    assert 100 * MIB < small.memory < large.memory < 8000 * MIB
    # At the least, eight float images and the stem's outputs at half the side.
    assert large.memory - small.memory > 8 * (3 * 128**2 + 32 * 64**2) * 4
    assert large.memory < 1.1 * estimated.memory


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
    inner = auto_batch._free_in_groups
    monkeypatch.setattr(
        auto_batch, "_free_in_groups", lambda: inner(tmp_path / "listing", tmp_path / "groups")
    )
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_memory(CPU) == 24 * MIB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert free_memory(CPU) == 12 * MIB
    (group / limit).write_text("max\n")
    assert free_memory(CPU) > 24 * MIB
