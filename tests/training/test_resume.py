"""A run that was killed and resumed is the run that was not."""

import os
import pickle
import time

import pytest
import torch
from safetensors.torch import load_file

from botvision.errors import BotvisionError
from botvision.recipes.running import resume_run, train_recipe
from botvision.training.run_folder import RunFolder


def killed_run(forked, recipe, path, place, step, display):
    """Train in another process, and kill it in the middle of its work.

    It stops where it is told to and waits to be killed, so that the place of the kill is not a
    matter of luck.
    """
    append, save = RunFolder.append, torch.save

    def wait():
        (path / "waiting").touch()
        time.sleep(600)

    def appending(self, record):
        append(self, record)
        if place == "metrics" and record["step"] == step:
            wait()
        if place == "evaluation" and record["step"] == step and "metrics" in record:
            wait()

    def saving(content, temporary):
        save(content, temporary)
        if place == "state" and content["progressed"]["step"] == step:
            os.truncate(temporary, 1000)
            wait()

    def work():
        RunFolder.append, torch.save = appending, saving
        train_recipe(recipe, path, display=display)

    child = forked(work)
    while not (path / "waiting").exists():
        assert child.processes[0].is_alive(), child.text()
        time.sleep(0.02)
    child.kill()
    (path / "waiting").unlink()
    return RunFolder(path)


@pytest.mark.parametrize(
    ("num_workers", "save_every", "place", "step", "resumed_from"),
    [
        (0, 1, "metrics", 3, 2),  # its line is written and its state is not
        (2, 2, "metrics", 8, 6),  # the last step of all, before its evaluation
        (0, 1, "state", 6, 5),  # half of the state is written
        (0, 3, "metrics", 2, None),  # there is no state yet
        (0, 9, "evaluation", 4, 4),  # the steps before an evaluation are saved
    ],
)
def test_killed_and_resumed_run_is_the_same_bit_for_bit(
    num_workers,
    save_every,
    place,
    step,
    resumed_from,
    make_recipe,
    trained_run,
    tmp_path,
    display,
    cli,
    forked,
    same_run,
):
    recipe = make_recipe(f"training.num_workers={num_workers}", f"training.save_every={save_every}")
    run = killed_run(forked, recipe, tmp_path / "run", place, step, display)
    if resumed_from is None:
        resume_run(run.path, display=display)
        assert display[0].begun == (0, 8)
        assert "interrupted before anything was saved: it begins again" in display[0].notes[-1]
        same_run(run, trained_run)
        return
    assert torch.load(run.state, weights_only=True)["progressed"]["step"] == resumed_from
    assert run.history()[-1]["step"] == step
    if num_workers:
        status, _, error = cli("train", "--resume", run.path)
        assert status == 0, error
    else:
        resume_run(run.path, display=display)
        assert display[0].begun == (resumed_from, 8)
        assert [done for done, _ in display[0].steps] == list(range(resumed_from + 1, 9))
    same_run(run, trained_run)


def test_the_comparison_can_fail(make_recipe, trained_run, tmp_path, display, same_run, same_bits):
    other = tmp_path / "other"
    train_recipe(make_recipe("training.seed=1"), other, display=display)
    with pytest.raises(AssertionError):
        same_run(RunFolder(other), trained_run)
    with pytest.raises(AssertionError):
        same_bits(
            load_file(other / "last.safetensors"), load_file(trained_run.path / "last.safetensors")
        )


def test_a_run_whose_state_is_gone_is_not_begun_again(run_copy, display, tree):
    run_copy.state.unlink()
    before = tree(run_copy.path)
    with pytest.raises(BotvisionError, match="nothing to resume from"):
        resume_run(run_copy.path, display=display)
    assert before.items() <= tree(run_copy.path).items()


def test_resuming_a_finished_run_changes_nothing(run_copy, trained_run, display, same_run):
    metrics = resume_run(run_copy.path, display=display)
    assert metrics == trained_run.history()[-1]["metrics"]
    assert display[0].begun == (8, 8)
    assert display[0].steps == []
    same_run(run_copy, trained_run)


def test_line_cut_short_by_a_crash_is_written_anew(
    run_copy, trained_run, display, same_run, same_bits
):
    state = torch.load(trained_run.state, weights_only=True)
    with run_copy.metrics.open("a") as file:
        file.write('{"step": 9, "los')
    resume_run(run_copy.path, display=display)
    same_run(run_copy, trained_run)
    same_bits(torch.load(run_copy.state, weights_only=True), state)


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
