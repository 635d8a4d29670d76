"""One run's life, killed at fifty moments: nothing is ever unloadable, and nothing is lost."""

import json
import random
import shutil
import time

import pytest
import yaml
from safetensors.torch import load_file

import botvision
from botvision.errors import BotvisionError
from botvision.training.run_folder import RunFolder
from botvision.training.state import read_state

KILLS = 50


def temporary_files(folder):
    """Files that are being written at this moment, and those that a kill left behind."""
    parts = [part for part in (folder, folder / "state") if part.is_dir()]
    return {each for part in parts for each in part.iterdir() if each.name.startswith(".")}


def assert_everything_loads(run):
    """Whatever is there can be used; it may not be there yet."""
    for weights in (run.best, run.last):
        if weights.exists():
            botvision.load(weights)
    if run.state.exists():
        read_state(run.state)
    for line in run.metrics.read_text().splitlines()[:-1] if run.metrics.exists() else ():
        json.loads(line)


@pytest.mark.slow
@pytest.mark.parametrize(("num_workers", "kills"), [(0, KILLS - 10), (2, 10)])
def test_run_killed_at_random_moments(
    num_workers, kills, make_recipe, trained_run, tmp_path, forked_command, same_run
):
    chance = random.Random(num_workers)
    recipe = tmp_path / "recipe.yaml"
    changes = (f"training.num_workers={num_workers}", "name=killed")
    recipe.write_text(yaml.safe_dump(make_recipe(*changes).model_dump(mode="json")))
    run = RunFolder(tmp_path / "instance_segmentation" / "killed")
    new = ("train", recipe, "--runs", tmp_path, "--name", "killed")
    began = time.monotonic()
    whole = forked_command(*new)
    assert whole.wait() == [0], whole.text()
    length = time.monotonic() - began
    same_run(run, trained_run)
    shutil.rmtree(run.path)
    killed = while_saving = lives = 0
    while killed < kills:
        if run.path.exists() and not run.state.exists():
            with pytest.raises(BotvisionError, match="start the run anew"):
                read_state(run.state)
            shutil.rmtree(run.path)
        again = run.path.exists()
        child = forked_command("train", "--resume", run.path) if again else forked_command(*new)
        wanted = chance.random() < 0.5  # in the middle of saving, at the first chance from then on
        left = temporary_files(run.path)
        began = time.monotonic()
        moment = began + chance.uniform(0, length / 3)
        while child.processes[0].is_alive():
            saving = bool(temporary_files(run.path) - left)
            if time.monotonic() >= moment and (saving or not wanted):
                while_saving += saving
                child.processes[0].kill()
                killed += 1
                break
        (code,) = child.wait()
        assert code in (0, -9), child.text()
        assert_everything_loads(run)
        if code == 0:
            same_run(run, trained_run)
            assert load_file(run.best).keys() == load_file(trained_run.best).keys()
            shutil.rmtree(run.path)
            lives += 1
            length = min(length, 3 * (time.monotonic() - began))  # the machine has become faster
    assert while_saving > kills // 5
    print(f"{killed} kills, {while_saving} while a file was written, {lives} lives to their end")
    if run.state.exists():
        assert forked_command("train", "--resume", run.path).wait() == [0]
        same_run(run, trained_run)
