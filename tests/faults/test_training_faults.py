"""Rows of the fault corpus that a training run meets."""

import json
import os
import resource
import signal
import time

import pytest
import torch
import yaml

import botvision
from botvision.errors import BotvisionError
from botvision.recipes.running import resume_run, train_recipe
from botvision.training.run_folder import RunFolder
from botvision.training.state import read_state, write_state
from botvision.weights.file import read_description, save_weights

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over another number of threads differ in their last bits, and forks have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("detector", ["mask_rcnn", "faster_rcnn"])
def test_row_15_batches_of_empty_images(detector, handwriting, make_recipe, tmp_path, display):
    data = tmp_path / "data"
    (data / "annotations").mkdir(parents=True)
    (data / "images").symlink_to(handwriting / "images")
    for split in ("train", "val"):
        file = f"instances_{split}.json"
        content = json.loads((handwriting / "annotations" / file).read_text())
        if split == "train":  # all but one image, so that whole batches are empty
            kept = content["images"][0]["id"]
            content["annotations"] = [a for a in content["annotations"] if a["image_id"] == kept]
        (data / "annotations" / file).write_text(json.dumps(content))
    recipe = make_recipe(f"model.detector={detector}", "training.epochs=1", data=data)
    train_recipe(recipe, tmp_path / "run", display=display)
    losses = [record["losses"] for record in RunFolder(tmp_path / "run").history()[:-1]]
    assert len(losses) == 4
    # Three of the four batches had nothing to find.
    assert sum(each["loss_box_reg"] == 0 for each in losses) >= 3
    assert all(torch.tensor(list(each.values())).isfinite().all() for each in losses)
    botvision.load(tmp_path / "run" / "last.safetensors")


def limited(size):
    """As full a disk as can be had without privileges."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("room", [0, 4096, 300_000])
@pytest.mark.parametrize("kind", ["state", "weights"])
def test_row_35_no_room_for_state_or_weights(kind, room, forked, trained_run, tmp_path):
    model = torch.nn.Linear(400, 500)
    path = tmp_path / kind
    progressed = {"step": 1, "evaluated": 0, "best": None, "since_best": 0}
    state = {"average": None, "optimizer": {}, "batch_size": 1, "recipe": {}}
    description = read_description(trained_run.best)

    def write(step):
        if kind == "weights":
            save_weights(path, model, description.model_copy(update={"made_by": {"step": step}}))
        else:
            now = {**progressed, "step": step}
            write_state(path, {**state, "model": model.state_dict(), "progressed": now})

    write(1)
    before = path.read_bytes()

    def work():
        limited(room)
        try:
            write(2)
        except BotvisionError as error:
            os._exit(7 if "\n" not in str(error) and f"{path}: the {kind}" in str(error) else 8)

    assert forked(work).wait() == [7]
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [kind]
    if kind == "weights":
        assert read_description(path).made_by == {"step": 1}
    else:
        assert read_state(path)["progressed"] == progressed


def test_row_35_command_is_one_line_and_the_run_goes_on(
    make_recipe, trained_run, forked, forked_command, tmp_path
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(make_recipe("name=full").model_dump(mode="json")))
    run = RunFolder(tmp_path / "instance_segmentation" / "full")
    started = forked_command("train", recipe, "--runs", tmp_path, "--max-steps", 8)
    while not run.state.exists():
        assert started.processes[0].is_alive(), started.text()
        time.sleep(0.005)
    # From now on nothing that is larger than a line can be written.
    resource.prlimit(started.processes[0].pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
    assert started.wait() == [2], started.text()
    line = started.text().splitlines()[-1]
    assert line.startswith("error: ")
    assert str(run.path) in line
    assert "Traceback" not in started.text()
    step = read_state(run.state)["progressed"]["step"]
    assert step < 8
    again = forked_command("train", "--resume", run.path)
    assert again.wait() == [0], again.text()
    assert run.metrics.read_text() == trained_run.metrics.read_text()


def test_row_37_killed_data_workers(make_recipe, trained_run, forked_command, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    content = make_recipe("training.num_workers=2", "training.save_every=100", "name=lost")
    recipe.write_text(yaml.safe_dump(content.model_dump(mode="json")))
    run = RunFolder(tmp_path / "instance_segmentation" / "lost")
    started = forked_command("train", recipe, "--runs", tmp_path)
    while not run.history():
        assert started.processes[0].is_alive(), started.text()
        time.sleep(0.005)
    killed = time.monotonic()
    for worker in started.children(started.processes[0]):
        os.kill(worker, signal.SIGKILL)
    assert started.wait() == [2], started.text()
    assert time.monotonic() - killed < 30
    line = started.text().splitlines()[-1]
    assert line.startswith("error: a data worker died, possibly out of memory (")
    assert line.endswith(f"resume the run in {run.path}")
    assert "Traceback" not in started.text()
    # What was done is saved, though no save was due.
    done = [record["step"] for record in run.history() if "losses" in record]
    assert read_state(run.state)["progressed"]["step"] == done[-1]
    again = forked_command("train", "--resume", run.path)
    assert again.wait() == [0], again.text()
    assert run.metrics.read_text() == trained_run.metrics.read_text()
    found, wanted = (
        torch.load(each.state, weights_only=True)["model"] for each in (run, trained_run)
    )
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_row_38_differences_of_a_changed_recipe_are_listed(run_copy, tree, display):
    before = tree(run_copy.path)
    changes = ("training.epochs=3", "training.learning_rate=0.5", "data.flip=0.0")
    with pytest.raises(BotvisionError) as raised:
        resume_run(run_copy.path, display=display, overrides=changes)
    message = str(raised.value)
    assert "\n" not in message
    for difference in (
        "data.flip 0.5 -> 0.0",
        "training.epochs 2 -> 3",
        "training.learning_rate 0.002 -> 0.5",
    ):
        assert difference in message
    assert tree(run_copy.path) == before


def test_row_38_what_changes_no_result_may_differ(run_copy, trained_run, handwriting, cli):
    run_copy.state.write_bytes(trained_run.state.read_bytes())
    moved = run_copy.path.parent / "moved data"
    moved.symlink_to(handwriting)
    status, _, error = cli(
        *("train", "--resume", run_copy.path, "--data", moved),
        *("--set", "training.num_workers=2", "--set", "training.save_every=2"),
        *("--set", "training.log_every=3"),
    )
    assert (status, error) == (0, "")
    assert run_copy.metrics.read_text() == trained_run.metrics.read_text()
    status, _, error = cli("train", "--resume", run_copy.path, "--set", "training.epochs=3")
    assert status == 2
    assert "training.epochs 2 -> 3" in error
    assert len(error.splitlines()) == 1
