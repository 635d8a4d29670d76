"""A run that was killed and resumed is the run that was not."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from botvision.errors import BotvisionError
from botvision.models.weights import read_description
from botvision.recipes.running import resume_run, train_recipe
from botvision.training.run_folder import RunFolder

# The child stops where it is told to and waits to be killed, so that the place of the kill is
# not a matter of luck.
CHILD = """
import contextlib, sys, time, torch
from pathlib import Path
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import train_recipe
from botvision.training import state
from botvision.training.run_folder import RunFolder

recipe, path, place, step = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def wait(*_):
    (path / "waiting").touch()
    time.sleep(600)

append, save = RunFolder.append, torch.save

def appending(self, record):
    append(self, record)
    if place == "metrics" and record["step"] == step:
        wait()

def saving(content, temporary):
    save(content, temporary)
    if place == "state" and content["progressed"]["step"] == step:
        with open(temporary, "r+b") as file:
            file.truncate(1000)
        wait()

RunFolder.append, torch.save = appending, saving

class Quiet:
    def step(self, *_): ...
    def evaluated(self, *_, **__): ...
    @contextlib.contextmanager
    def evaluating(self):
        yield lambda done, total: None

train_recipe(read_recipe(recipe), path, display=lambda *_: contextlib.nullcontext(Quiet()))
"""


def killed_run(recipe, path, tmp_path, place, step):
    """Train in another process and kill it in the middle of its work."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(file), str(path), place, str(step)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300  # a busy machine imports slowly
        while not (path / "waiting").exists():
            assert child.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(child.pid, signal.SIGKILL)  # its data workers too
        child.wait()
    (path / "waiting").unlink()
    return RunFolder(path)


def assert_same_bits(one, other, where=""):
    """Nested containers of tensors and numbers agree in every bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_bits(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same_bits(*pair, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def assert_same_run(run, expected):
    assert run.metrics.read_text() == expected.metrics.read_text()
    states = [torch.load(folder.state, weights_only=True) for folder in (run, expected)]
    assert states[0]["average"].keys() == states[0]["model"].keys()
    assert_same_bits(*states)
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_bits(load_file(run.path / name), load_file(expected.path / name), name)
        descriptions = [read_description(folder.path / name) for folder in (run, expected)]
        assert descriptions[0]["metrics"] == descriptions[1]["metrics"]
        assert descriptions[0]["step"] == descriptions[1]["step"]
    for name in ("predictions.json", "results.csv"):
        assert (run.path / name).read_bytes() == (expected.path / name).read_bytes()


@pytest.mark.parametrize(
    ("workers", "save_every", "place", "step", "resumed_from"),
    [
        (0, 1, "metrics", 3, 2),  # its line is written and its state is not
        (2, 2, "metrics", 8, 6),  # the last step of all, before its evaluation
        (0, 1, "state", 6, 5),  # half of the state is written
        (0, 3, "metrics", 2, None),  # there is no state yet
    ],
)
def test_killed_and_resumed_run_is_the_same_bit_for_bit(
    workers, save_every, place, step, resumed_from, make_recipe, trained_run, tmp_path, display, cli
):
    recipe = make_recipe(f"training.workers={workers}", f"training.save_every={save_every}")
    run = killed_run(recipe, tmp_path / "run", tmp_path, place, step)
    if resumed_from is None:
        with pytest.raises(BotvisionError, match="nothing to resume from"):
            resume_run(run.path, display=display)
        return
    assert torch.load(run.state, weights_only=True)["progressed"]["step"] == resumed_from
    assert run.history()[-1]["step"] == step
    if workers:
        status, _, error = cli("train", "--resume", run.path)
        assert status == 0, error
    else:
        resume_run(run.path, display=display)
        assert display[0].begun == (resumed_from, 8)
        assert [done for done, _ in display[0].steps] == list(range(resumed_from + 1, 9))
    assert_same_run(run, trained_run)


def test_the_comparison_can_fail(make_recipe, trained_run, tmp_path, display):
    other = tmp_path / "other"
    train_recipe(make_recipe("training.seed=1"), other, display=display)
    with pytest.raises(AssertionError):
        assert_same_run(RunFolder(other), trained_run)
    with pytest.raises(AssertionError):
        assert_same_bits(
            load_file(other / "last.safetensors"), load_file(trained_run.path / "last.safetensors")
        )


def test_resuming_a_finished_run_changes_nothing(run_copy, trained_run, display):
    metrics = resume_run(run_copy.path, display=display)
    assert metrics == trained_run.history()[-1]["metrics"]
    assert display[0].begun == (8, 8)
    assert display[0].steps == []
    assert_same_run(run_copy, trained_run)


def test_line_cut_short_by_a_crash_is_written_anew(run_copy, trained_run, display):
    state = torch.load(trained_run.state, weights_only=True)
    with run_copy.metrics.open("a") as file:
        file.write('{"step": 9, "los')
    resume_run(run_copy.path, display=display)
    assert_same_run(run_copy, trained_run)
    assert_same_bits(torch.load(run_copy.state, weights_only=True), state)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def spoil(run, kind, tmp_path):
    state = torch.load(run.state, weights_only=True)
    if kind == "truncated":
        run.state.write_bytes(run.state.read_bytes()[:5000])
    elif kind == "empty":
        run.state.write_bytes(b"")
    elif kind == "text":
        run.state.write_text("this is no state")
    elif kind == "pickle":
        run.state.write_bytes(pickle.dumps(Malicious(tmp_path / "executed")))
    elif kind == "malicious":
        torch.save({**state, "progressed": Malicious(tmp_path / "executed")}, run.state)
    elif kind == "other model":
        state["model"].popitem()
        torch.save(state, run.state)
    elif kind == "no progress":
        del state["progressed"]
        torch.save(state, run.state)
    elif kind == "a list":
        torch.save([1, 2], run.state)


@pytest.mark.parametrize(
    "kind",
    ["truncated", "empty", "text", "pickle", "malicious", "other model", "no progress", "a list"],
)
def test_damaged_state_is_one_line_and_nothing_is_executed(kind, run_copy, tree, tmp_path, display):
    spoil(run_copy, kind, tmp_path)
    before = tree(run_copy.path)
    with pytest.raises(BotvisionError) as raised:
        resume_run(run_copy.path, display=display)
    assert not (tmp_path / "executed").exists()
    assert str(run_copy.state) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert tree(run_copy.path) == before


def test_folder_that_is_no_run(tmp_path, display):
    with pytest.raises(BotvisionError, match=r"expected a run folder with recipe\.yaml, got none"):
        resume_run(tmp_path, display=display)


@pytest.mark.parametrize(
    "content", ["a: [1", "!!python/object/apply:os.system ['touch executed']", "", "- 1"]
)
def test_damaged_recipe_of_a_run_is_one_line(content, run_copy, display, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_copy.recipe.write_text(content)
    with pytest.raises(BotvisionError, match=r"recipe\.yaml") as raised:
        resume_run(run_copy.path, display=display)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 5])
def test_killed_anywhere(steps, make_recipe, trained_run, tmp_path, command):
    """As a user meets it: the command is killed while it works, wherever it happens to be."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(make_recipe("name=killed").model_dump(mode="json")))
    run = RunFolder(tmp_path / "instance_segmentation" / "killed")
    child = subprocess.Popen(
        [
            *(sys.executable, "-c", "from botvision.cli import main; main()"),
            *("train", str(recipe), "--runs", str(tmp_path)),
        ],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    while not (run.state.exists() and len(run.history()) > steps):
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    command("train", "--resume", run.path, check=True)
    assert_same_run(run, trained_run)
