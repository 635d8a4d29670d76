"""The loop trains a classifier, and goes on with it bit for bit."""

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file

import botvision
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import train_recipe
from botvision.training.loop import train
from botvision.training.run_folder import RunFolder
from botvision.training.settings import TrainingSettings

SETTINGS = {
    "batch_size": 24,
    "epochs": 2,
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "warmup_steps": 5,
    "precision": "float32",
    "channels_last": False,
    "num_workers": 0,
    "log_every": 1,
    "evaluate_every": 2,
}
# Everything that draws at random.
RANDOM = {"mixup": 0.2, "cutmix": 1.0, "augmentation": "rand-m5-n1", "erasing": 0.3}


@pytest.fixture
def run(make_task, display, tmp_path):
    def start(name, *, task=None, resume=False, display=display, data=None, **settings):
        task = task or make_task(**(data or {}))
        task.description["recipe"] = {}
        path = tmp_path / name
        folder = RunFolder.open(path) if resume else RunFolder.create(path, {})
        chosen = TrainingSettings(**{**SETTINGS, **settings})
        return train(task, chosen, folder, display=display, resume=resume), folder

    return start


def test_shapes_are_told_apart(run, display):
    metrics, folder = run("shapes", epochs=6, learning_rate=1e-2, evaluate_every=3)
    assert metrics["top1"] >= 0.95
    assert metrics["top1"] == metrics["class_mean"]
    (shown,) = display
    assert shown.steps[-1][1]["cross_entropy"] < 0.5 < shown.steps[0][1]["cross_entropy"]
    written = {path.name for path in folder.path.iterdir()}
    assert {"labels.png", "train_batch0.jpg", "val_epoch006.jpg", "confusion_matrix.png"} <= written
    results = json.loads((folder.path / "predictions.json").read_text())
    right = sum(one["class"] == one["predicted"][0]["class"] for one in results)
    assert right == round(36 * metrics["top1"])


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_is_the_uninterrupted_one(run, display, num_workers):
    model = {"drop_path": 0.2, "dropout": 0.1}
    data = {"model": model, **RANDOM}
    expected, whole = run("whole", data=data, ema_decay=0.9)

    @contextlib.contextmanager
    def stopping(*arguments):
        with display(*arguments) as shown:
            step = shown.step

            def stop(figures):
                step(figures)
                if figures.step == 8:  # in the second epoch of five steps
                    raise StoppedError

            shown.step = stop
            yield shown

    with pytest.raises(StoppedError):
        run(
            "cut", data=data, ema_decay=0.9, save_every=2, num_workers=num_workers, display=stopping
        )
    torch.manual_seed(99)
    found, cut = run("cut", data=data, ema_decay=0.9, resume=True, num_workers=num_workers)
    assert found == expected
    one, two = load_file(whole.last), load_file(cut.last)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_split_over_two_processes_is_the_run_that_is_not(shapes, forked, display, tmp_path):
    """Weights, gradients and optimizer of each process are a half; only rounding differs."""
    folders = []
    for sharded in ("false", "true"):
        narrow = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1), "stem_width": 4}
        recipe = read_recipe(
            "small_cifar_botnet",
            [
                f"data.folder={json.dumps(str(shapes))}",
                f"model.classifier_arguments={json.dumps(narrow)}",
                f"training.sharded={sharded}",
                *(f"training.{key}={json.dumps(value)}" for key, value in SETTINGS.items()),
                *("training.ema_decay=0.9", "data.cutmix=1.0"),
            ],
        )
        path = tmp_path / sharded
        forks = forked(lambda r=recipe, p=path: train_recipe(r, p, display=display), 2)
        assert forks.wait() == [0, 0], forks.text()
        folders.append(RunFolder(path))
    whole, split = (folder.history() for folder in folders)
    assert len(whole) == len(split) == 11
    for wanted, found in zip(whole, split, strict=True):
        if "losses" in wanted:
            assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-3)
        else:
            assert found["metrics"]["loss"] == pytest.approx(wanted["metrics"]["loss"], rel=1e-3)
    one, two = (load_file(folder.last) for folder in folders)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], rtol=1e-2, atol=1e-4) for name in one)
    botvision.load(folders[1].best)
