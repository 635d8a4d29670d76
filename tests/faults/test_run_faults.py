"""What happens to runs: no truth, two at once, failures before anything is saved, workers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler

import pytest
import yaml

from botvision.errors import BotvisionError
from botvision.processes import call_in_new_process
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import build_task, resume_run, train_recipe
from botvision.training.run_folder import RunFolder
from botvision.weights.file import read_description

pytestmark = pytest.mark.usefixtures("undrawn")


def test_metric_without_truth_chooses_nothing(handwriting, make_recipe, tmp_path, display):
    data = tmp_path / "data"
    shutil.copytree(handwriting, data)
    path = data / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    recipe = make_recipe("training.epochs=5", "training.patience=1", data=data)
    train_recipe(recipe, tmp_path / "run", display=display)
    run = RunFolder(tmp_path / "run")
    assert [step for step, _ in display[0].steps][-1] == 20
    assert read_description(run.best).made_by["step"] == 20
    notes = [note for note in display[0].notes if "mask_ap is undefined" in note]
    assert len(notes) == 1


@pytest.fixture
def started(make_recipe, forked_command, tmp_path):
    """A function that starts a run, waits for its first state, and gives process and folder."""

    def start(*overrides):
        recipe = tmp_path / "recipe.yaml"
        made = make_recipe("name=started", *overrides)
        recipe.write_text(yaml.safe_dump(made.model_dump(mode="json")))
        run = RunFolder(tmp_path / "instance_segmentation" / "started")
        first = forked_command("train", recipe, "--runs", tmp_path)
        while not run.state.exists():
            assert first.processes[0].is_alive(), first.text()
            time.sleep(0.005)
        return first, run

    return start


def test_one_run_is_trained_by_one_process(started, trained_run, cli):
    first, run = started()
    os.kill(first.processes[0].pid, signal.SIGSTOP)
    before = run.metrics.read_text()
    status, _, error = cli("train", "--resume", run.path)
    assert status == 2
    assert len(error.splitlines()) == 1
    assert f"the run is being trained by process {first.processes[0].pid} on " in error
    assert run.metrics.read_text() == before
    os.kill(first.processes[0].pid, signal.SIGCONT)
    assert first.wait() == [0], first.text()
    assert run.metrics.read_text() == trained_run.metrics.read_text()


def test_a_killed_process_holds_nothing(started, cli):
    first, run = started("training.num_workers=2")
    os.kill(first.processes[0].pid, signal.SIGKILL)  # its workers live on for a while
    first.processes[0].join()
    status, _, error = cli("train", "--resume", run.path, "--set", "training.num_workers=0")
    assert (status, error) == (0, "")


def test_batch_of_one_value_per_channel(make_recipe, tmp_path, display):
    recipe = make_recipe("model.image_size=32", "training.batch_size=1")
    with pytest.raises(BotvisionError) as raised:
        train_recipe(recipe, tmp_path / "run", display=display)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("step 1: BatchNorm needs more than one value per channel")
    assert "training.micro_batch_size" in message
    # The name is free again.
    assert not (tmp_path / "run").exists()
    train_recipe(make_recipe("training.max_steps=1"), tmp_path / "run", display=display)


def test_a_failure_after_the_first_step_leaves_the_run(make_recipe, tmp_path, display, monkeypatch):
    from botvision.tasks.detection.training import DetectorTraining

    losses, calls = DetectorTraining.losses, []

    def failing(*arguments):
        calls.append(None)
        if len(calls) == 2:
            raise BotvisionError("gone")
        return losses(*arguments)

    monkeypatch.setattr(DetectorTraining, "losses", failing)
    with pytest.raises(BotvisionError, match="gone"):
        train_recipe(make_recipe("training.save_every=9"), tmp_path / "run", display=display)
    assert RunFolder(tmp_path / "run").history()[0]["step"] == 1
    resume_run(tmp_path / "run", display=display)


_STARTED = """
import multiprocessing, sys
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(1))
    from botvision.cli import main
    main()
"""


# A command and its worker import everything; test_spawned_workers_read_items shows the same faster.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detector", "classifier"])
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_that_are_not_forked(method, kind, handwriting, colors, tiny, tmp_path):
    script = tmp_path / "start.py"
    script.write_text(_STARTED)
    options = [each for setting in tiny for each in ("--set", setting)]
    recipe, data = ("demo", handwriting) if kind == "detector" else ("small_cifar_botnet", colors)
    if kind == "classifier":
        options = ["--set", "training.batch_size=8", "--set", "model.image_size=32"]
    arguments = ["train", recipe, "--data", str(data), *options, "--runs", str(tmp_path / "runs")]
    arguments += ["--set", "training.num_workers=1", "--max-steps", "1"]
    done = subprocess.run(
        [sys.executable, str(script), method, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.fixture
def tasks(make_recipe, colors):
    """A detector's and a classifier's task."""
    data = f"data.folder={json.dumps(str(colors))}"
    classifier = read_recipe("small_cifar_botnet", [data, "model.image_size=32"])
    return build_task(make_recipe()), build_task(classifier)


def first_batches(pairs):
    """The first batch of each pair of data and collate function, as a worker makes it."""
    for data, collate in pairs:
        collate([data[(0, index)] for index in range(2)])
    return len(pairs)


def test_spawned_workers_read_items(tasks):
    """A process that shares nothing with this one gets by pickle what workers get."""
    pairs = [(task.train_data(), task.collate) for task in tasks]
    assert call_in_new_process(first_batches, pairs) == 2


def test_workers_get_no_model(tasks):
    """What a worker is sent by pickle holds no parameter."""
    for task in tasks:
        ForkingPickler.dumps((task.train_data(), task.collate))
        assert not any(parameter.is_shared() for parameter in task.model.parameters())
