"""A classifier with its data as the training loop sees it, and in the loop."""

import contextlib
import json
import math
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

import botvision
from botvision.errors import BotvisionError
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import train_recipe
from botvision.tasks.classification.build import build_classifier
from botvision.tasks.classification.evaluation import classify
from botvision.tasks.classification.settings import ClassifierSettings
from botvision.tasks.task import Trainable
from botvision.training.loop import train
from botvision.training.run_folder import RunFolder
from botvision.training.settings import TrainingSettings
from botvision.weights.file import save_weights

CPU = torch.device("cpu")
CHARTS = {"confusion_matrix.png", "calibration.png", "per_class.png"}


def nothing(done, total):
    pass


def batch_of(task, indices, epoch=0):
    return task.collate([task.train_data()[(epoch, index)] for index in indices])


def test_a_task(make_task):
    task: Trainable = make_task()
    assert task.backbone is task.model
    assert task.primary_metric in task.metric_names
    assert set(task.headlines) <= set(task.metric_names)
    assert len(task.train_data()) == 120
    assert "120 images of 3 classes" in task.notes[0]
    task.model.eval()
    task.set_training_mode(task.model)
    assert all(module.training for module in task.model.modules())
    metrics = task.evaluate(task.model, nothing)
    assert all(math.isfinite(metrics[name]) for name in task.metric_names)
    assert task.model.training
    json.dumps([metrics, task.results(), task.description.model_dump(mode="json")], allow_nan=False)


def test_losses_are_the_models_cross_entropy(make_task):
    task = make_task(model={"label_smoothing": 0.2})
    images, labels = batch = batch_of(task, [0, 50, 110, 3])
    assert labels.tolist() == [0, 1, 2, 0]
    losses = task.losses(task.model, batch, CPU)
    with torch.no_grad():
        logs = task.model(images).log_softmax(dim=1)
    plain = -logs[torch.arange(4), labels].mean()
    expected = 0.8 * plain - 0.2 * logs.mean()
    assert float(sum(losses.values()).detach()) == pytest.approx(float(expected), rel=1e-5)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in task.model.parameters())


def test_autocast_where_the_recipe_says_so(make_task):
    seen = []
    for precision in ("float32", "bfloat16"):
        task = make_task(precision=precision)
        task.model.fc.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
        (loss,) = task.losses(task.model, batch_of(task, range(4)), CPU).values()
        assert loss.dtype == torch.float32
        task.evaluate(task.model, nothing)
    assert set(seen[: len(seen) // 2]) == {torch.float32}
    assert set(seen[len(seen) // 2 :]) == {torch.bfloat16}


def test_mixed_batches_train(make_task):
    task = make_task(mixup=0.8, cutmix=1.0, model={"label_smoothing": 0.1})
    batch = batch_of(task, range(0, 120, 15))
    targets = batch[1]
    assert targets.shape == (8, 3)
    assert torch.allclose(targets.sum(dim=1), torch.ones(8))
    assert task.batch_image(batch).mode == "RGB"
    (loss,) = task.losses(task.model, batch, CPU).values()
    assert math.isfinite(loss.detach())


def test_predictions_are_the_models(make_task):
    task = make_task()
    task.model.train()
    for epoch in range(3):  # or all images would look alike to the network
        task.losses(task.model, batch_of(task, range(0, 120, 5), epoch), CPU)
    done = []
    metrics = task.evaluate(task.model, lambda *count: done.append(count))
    assert done == [(16, 36), (32, 36), (36, 36)]
    data = task._val
    task.model.eval()
    with torch.no_grad():
        logits = torch.cat([task.model(data[(0, index)][0][None]) for index in range(36)])
    shares = logits.softmax(dim=1).numpy()
    losses = F.cross_entropy(logits, data.labels, reduction="none")
    for index, result in enumerate(task.results()):
        assert result["image"] == data.name(index)
        assert result["image"].startswith(result["class"] + "/")
        order = np.argsort(-shares[index])
        names = [task._classes[place] for place in order]
        assert [one["class"] for one in result["predicted"]] == names
        found = [one["probability"] for one in result["predicted"]]
        assert found == pytest.approx(shares[index][order].tolist(), abs=1e-4)
    assert metrics["loss"] == pytest.approx(float(losses.mean()), rel=1e-4)


def test_workers_change_nothing(make_task):
    alone, helped = make_task(), make_task(num_workers=2)
    assert alone.evaluate(alone.model, nothing) == helped.evaluate(helped.model, nothing)
    assert alone.results() == helped.results()


def test_two_processes_find_what_one_finds(make_task, shapes, tmp_path):
    task = make_task(batch_size=8)  # five batches: three and two
    task.evaluate(task.model, nothing)
    script = tmp_path / "evaluate.py"
    script.write_text(
        "import json, sys, torch\n"
        "from botvision.tasks.classification.settings import (\n"
        "    ClassifierSettings, ClassImageSettings)\n"
        "from botvision.tasks.classification.training import ClassifierTraining\n"
        "from botvision.processes import processes\n"
        "model, data, threads, out = map(json.loads, sys.argv[1:])\n"
        "torch.set_num_threads(threads)\n"
        "task = ClassifierTraining(ClassifierSettings(**model), ClassImageSettings(**data),\n"
        "    batch_size=8, num_workers=0, precision='float32',\n"
        "    memory_format='contiguous_format', seed=0)\n"
        "done = []\n"
        "metrics = task.evaluate(task.model, lambda *count: done.append(count))\n"
        "rank = processes().process_index\n"
        "json.dump([metrics, task.results(), done[-1]], open(f'{out}/{rank}.json', 'w'))\n"
    )
    model = task.description.model
    data = {"folder": str(shapes), "crop_pct": 1.0}
    arguments = [model, data, torch.get_num_threads(), str(tmp_path)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--master-port", port]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", str(script), *map(json.dumps, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one[2] == [20, 20]
    assert two[2] == [16, 16]
    expected = json.loads(json.dumps([task.evaluate(task.model, nothing), task.results()]))
    assert one[:2] == two[:2] == expected


def test_images(make_task, tmp_path):
    task = make_task()
    task.draw_data(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"labels.png"}
    task.evaluate(task.model, nothing)
    seen = {"labels.png", "val_epoch003.jpg", "val_predictions.jpg"}
    task.draw_evaluation(tmp_path, 3, best=False)
    assert {path.name for path in tmp_path.iterdir()} == seen
    task.draw_evaluation(tmp_path, 3, best=True)
    assert {path.name for path in tmp_path.iterdir()} == seen | CHARTS
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert min(image.size) > 200
    batch = batch_of(task, range(0, 120, 6))
    sheet = np.asarray(task.batch_image(batch)).astype(float)
    # The first image stands in the first cell, six times as large and in its own colors.
    train = task.train_data()
    with Image.open(f"{train.source}/{train.name(0)}") as image:
        original = np.asarray(image.convert("RGB")).astype(float)
    middle = np.median(sheet[:192, :192], axis=(0, 1))
    assert np.abs(middle - np.median(original, axis=(0, 1))).max() <= 3


def test_the_description_builds_the_model_again(make_task):
    task = make_task()
    settings = ClassifierSettings.model_validate(json.loads(json.dumps(task.description.model)))
    again = build_classifier(settings, len(task.description.classes))
    again.load_state_dict(task.model.state_dict())
    assert task.description.class_names == ("circle", "cross", "square")


def test_a_backbone_is_noted(make_task, tmp_path):
    task = make_task()
    torch.save(task.model.state_dict(), tmp_path / "backbone.pth")
    started = make_task(model={"backbone_weights": tmp_path / "backbone.pth"})
    assert any("backbone.pth" in note and "fc" in note for note in started.notes)
    assert "backbone_weights" not in started.description.model


def test_a_license_of_trained_weights_is_noted(make_task, tmp_path):
    # What pretrained=True loads, here from a file in place of the address.
    name, path = "convnextv2_atto.fcmae", tmp_path / "trained.pth"
    torch.save(timm.create_model(name).state_dict(), path)
    arguments = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    model = {"classifier": f"timm/{name}", "classifier_arguments": arguments, "stem": "imagenet"}
    task = make_task(model=model)
    assert f"classifier timm/{name}: license cc-by-nc-4.0, which allows no commercial" in " ".join(
        task.notes
    )
    assert task.description.model["classifier"] == name


def test_a_backbone_of_another_image_size(make_task, tmp_path):
    small = make_task()
    save_weights(tmp_path / "best.safetensors", small.model, small.description)
    task = make_task(model={"backbone_weights": tmp_path / "best.safetensors", "image_size": 48})
    ours, theirs = task.model.state_dict(), small.model.state_dict()
    tables = [name for name in ours if ".position." in name]
    assert tables
    for name, tensor in theirs.items():
        if name in tables:
            # Of a map of 3 / 2 of the side; the offset 0 stays in the middle.
            assert len(ours[name]) == 3 * (len(tensor) + 1) // 2 - 1
            torch.testing.assert_close(ours[name][len(ours[name]) // 2], tensor[len(tensor) // 2])
        else:
            assert torch.equal(ours[name], tensor)
    batch = task.collate([task.train_data()[(0, index)] for index in range(4)])
    assert batch[0].shape == (4, 3, 48, 48)
    (loss,) = task.losses(task.model, batch, torch.device("cpu")).values()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in task.model.parameters())


def test_images_are_skipped_in_both_splits(make_task, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "shapes")
    for split in ("train", "val"):
        (tmp_path / "shapes" / split / "cross" / "3.png").write_text("no image")
    task = make_task(folder=tmp_path / "shapes", skip_bad=True)
    assert len(task.train_data()) == 119
    train, val = task.notes
    assert "119 images" in train
    assert "35 images" in val
    assert "1 skipped" in train
    assert "1 skipped" in val
    assert task.evaluate(task.model, nothing)["top1"] >= 0
    assert len(task.results()) == 35


@pytest.mark.parametrize("kept", [["cross"], ["circle", "cross"]])
def test_classes_that_do_not_fit(make_task, shapes, tmp_path, kept):
    for split in ("train", "val"):
        for name in kept:
            shutil.copytree(shapes / split / name, tmp_path / split / name)
    if len(kept) == 1:
        expected = "two classes or more"
    else:
        shutil.copytree(shapes / "val" / "square", tmp_path / "val" / "square")
        expected = "class 'square'"
    with pytest.raises(BotvisionError, match=expected):
        make_task(folder=tmp_path)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_image_is_one_line(make_task, shapes, tmp_path, num_workers):
    shutil.copytree(shapes, tmp_path / "shapes")
    damaged = tmp_path / "shapes" / "val" / "cross" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    task = make_task(folder=tmp_path / "shapes")
    with pytest.raises(BotvisionError, match=str(damaged)) as caught:
        classify(
            task.model,
            task._val,
            precision="float32",
            batch_size=8,
            num_workers=num_workers,
            progress=nothing,
        )
    assert "\n" not in str(caught.value)


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
