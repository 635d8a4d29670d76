"""``botvision val`` of a classifier finds what the training found, and says what is wrong."""

import json
import shutil

import pytest
import torch
from PIL import Image

from botvision.images.decode import read_image
from botvision.predict.class_predictor import class_predictor
from botvision.tasks.classification.metrics import BEST_CLASSES
from botvision.weights.file import read_description


def val(cli, *arguments):
    status, out, err = cli("val", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def test_the_figures_are_the_trainings(cli, classifier_run, colors):
    for weights in (classifier_run.best, classifier_run.last):
        description = read_description(weights)
        found = val(cli, weights)
        assert found.pop("images") == 35
        assert found.pop("skipped") == 0
        assert found == description["metrics"]
        assert found["top5"] >= found["top1"]
    assert val(cli, classifier_run.best, "--data", colors, "--split", "train")["images"] == 56


def test_the_table_and_the_images(cli, classifier_run, tmp_path):
    status, out, _ = cli("val", classifier_run.best, "--output", tmp_path / "new" / "images")
    assert status == 0
    for word in ("top1", "top5", "calibration_error", "accuracy of yellow"):
        assert word in out
    names = {path.name for path in (tmp_path / "new" / "images").iterdir()}
    assert names == {"confusion_matrix.png", "calibration.png", "per_class.png"}
    for name in names:
        assert read_image(tmp_path / "new" / "images" / name).width > 300


def test_flips(cli, classifier_run, colors):
    files = sorted((colors / "val").rglob("*.png"))
    predictor = class_predictor(classifier_run.best, read_description(classifier_run.best))
    seen = torch.stack([predictor.transform(read_image(path)) for path in files])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        # In the batches of the evaluation.
        sides = [
            [predictor.model(x).float() for x in images.split(14)]
            for images in (seen, seen.flip(-1))
        ]
    probabilities = sum(torch.cat(side).softmax(dim=1) for side in sides) / 2
    labels = torch.tensor([predictor.classes.index(path.parent.name) for path in files])
    losses = -probabilities[torch.arange(len(files)), labels].double().log()
    best = probabilities.topk(BEST_CLASSES).indices
    found, plain = val(cli, classifier_run.best, "--tta"), val(cli, classifier_run.best)
    assert found["loss"] == pytest.approx(float(losses.mean()), rel=1e-4)
    assert found["loss"] != plain["loss"]
    assert found["top1"] == float((best[:, 0] == labels).double().mean())
    assert found["top5"] == float((best == labels[:, None]).any(1).double().mean())


def test_another_image_size(cli, classifier_run):
    description = read_description(classifier_run.best)
    predictor = class_predictor(classifier_run.best, description, image_size=48)
    tables = {
        name: tuple(tensor.shape)
        for name, tensor in predictor.model.state_dict().items()
        if ".position." in name
    }
    # c5's first block attends to a quarter of the side.
    assert tables
    assert {length for length, _ in tables.values()} <= {2 * 12 - 1, 2 * 6 - 1}
    assert predictor.transform(Image.new("RGB", (90, 60))).shape == (3, 48, 48)
    found = val(cli, classifier_run.best, "--image-size", 48)
    assert found["images"] == 35
    assert found["loss"] != description["metrics"]["loss"]


@pytest.fixture
def folder(colors, tmp_path):
    shutil.copytree(colors / "val", tmp_path / "data" / "val")
    return tmp_path / "data"


def error(cli, *arguments):
    status, _, err = cli(*arguments)
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_classes_that_the_weights_do_not_know(cli, classifier_run, folder):
    shutil.copytree(folder / "val" / "red", folder / "val" / "pink")
    text = error(cli, "val", classifier_run.best, "--data", folder)
    assert "class 'pink': expected the 7 classes of" in text
    assert "best.safetensors, got 8 with 1 others" in text


def test_fewer_classes_than_the_weights_know(cli, classifier_run, folder):
    shutil.rmtree(folder / "val" / "red")
    found = val(cli, classifier_run.best, "--data", folder)
    assert found["images"] == 30
    assert found["per_class"]["red"] is None
    whole = read_description(classifier_run.best)["metrics"]["per_class"]
    assert {**found["per_class"], "red": whole["red"]} == whole


def test_an_unreadable_image_is_named_or_counted(cli, classifier_run, folder):
    path = folder / "val" / "green" / "green3.png"
    path.write_bytes(path.read_bytes()[:200])
    assert "green3.png" in error(cli, "val", classifier_run.best, "--data", folder)
    found = val(cli, classifier_run.best, "--data", folder, "--skip-bad")
    assert (found["images"], found["skipped"]) == (34, 1)
    status, out, _ = cli("val", classifier_run.best, "--data", folder, "--skip-bad")
    assert status == 0
    assert "34 images; 1 more could not be read" in out
    for each in (folder / "val").rglob("*.png"):
        each.write_text("no image")
    text = error(cli, "val", classifier_run.best, "--data", folder, "--skip-bad")
    assert "none of the images can be read" in text


@pytest.mark.parametrize("option", [["--tta"], ["--skip-bad"], ["--output", "x"]])
def test_what_detectors_do_not_do(cli, trained_run, option):
    text = error(cli, "val", trained_run.last, *option)
    assert f"{option[0]}: expected a classifier's weights, got a detector's" in text
