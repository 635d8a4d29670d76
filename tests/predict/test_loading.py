"""Loading a model from any form of its weights, and nothing else with it."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import botvision
from botvision.errors import BotvisionError
from botvision.tasks.classification.predictor import ClassificationPredictor
from botvision.tasks.detection.predictor import DetectionPredictor
from botvision.tasks.publish import save_pretrained
from botvision.weights.file import read_description, read_tensors, save_weights, write_tensors


@pytest.fixture(params=["trained_run", "classifier_run"])
def run(request):
    return request.getfixturevalue(request.param)


def confidence(model, path, **options):
    return model(path, threshold=0.0, **options).confidence


def test_the_kind_of_the_predictor(trained_run, classifier_run):
    assert isinstance(botvision.load(trained_run.best), DetectionPredictor)
    assert isinstance(botvision.load(str(classifier_run.best)), ClassificationPredictor)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device(device, run, val_image):
    model = botvision.load(run.best, device=device)
    assert model.device == torch.device("cpu")
    assert {each.device.type for each in model.model.parameters()} == {"cpu"}
    assert len(confidence(model, val_image)) > 0


@pytest.mark.parametrize(
    "device", ["gpu", "", "cuda:x", "cuda:99", "cpu:one", "xla", torch.device("cuda:99")], ids=str
)
def test_a_device_that_is_not_there_is_one_line(device, run):
    with pytest.raises(BotvisionError, match="device: expected one that torch can use") as raised:
        botvision.load(run.best, device=device)
    assert "\n" not in str(raised.value)
    assert str(device) in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda recipe: recipe["training"].update(gradient_noise=0.1),
        lambda recipe: recipe["training"].update(lr=recipe["training"].pop("learning_rate")),
        lambda recipe: [recipe["training"].pop(key) for key in ("optimizer", "precision")],
        lambda recipe: recipe["data"].clear(),
        lambda recipe: recipe.clear(),
        lambda recipe: recipe.update(training="as always", data=3, model=None),
    ],
    ids=["one more", "renamed", "removed", "no data", "empty", "other types"],
)
def test_the_recipe_is_information(change, run, val_image, tmp_path):
    description = read_description(run.best)
    recipe = description.model_dump(mode="json")["recipe"]
    change(recipe)
    path = tmp_path / "a.safetensors"
    changed = description.model_copy(update={"recipe": recipe})
    write_tensors(path, read_tensors(run.best), changed)
    found, expected = botvision.load(path), botvision.load(run.best)
    assert np.array_equal(confidence(found, val_image), confidence(expected, val_image))
    save_pretrained(path, tmp_path / "published")
    published = botvision.load(tmp_path / "published")
    assert np.array_equal(confidence(published, val_image), confidence(expected, val_image))


PROGRAM = """
import sys
import botvision

model = botvision.load(sys.argv[1], device="cpu")
model(sys.argv[2])
list(model.stream(sys.argv[2]))
parts = ("training", "recipes", "benchmark", "cli", "demo")
loaded = [name for name in sys.modules if name.startswith("botvision.")]
print([name for name in loaded if name.split(".")[1] in parts])
"""


def test_prediction_imports_no_training(run, val_image):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, run.best, val_image],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_a_task_that_is_unknown(run, tmp_path):
    description = read_description(run.best).model_copy(update={"task": "detektion"})
    write_tensors(tmp_path / "a.safetensors", read_tensors(run.best), description)
    with pytest.raises(BotvisionError, match="got 'detektion'; did you mean detection") as raised:
        botvision.load(tmp_path / "a.safetensors")
    assert str(tmp_path / "a.safetensors") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_that_are_none_of_ours(tmp_path):
    with pytest.raises(BotvisionError, match="no such weights file"):
        botvision.load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_text("text")
    with pytest.raises(BotvisionError, match="expected a safetensors file"):
        botvision.load(tmp_path / "a.safetensors")
    save_weights(tmp_path / "a.safetensors", torch.nn.Linear(1, 1))
    with pytest.raises(BotvisionError, match="without their description"):
        botvision.load(tmp_path / "a.safetensors")
    with pytest.raises(BotvisionError, match=r"expected model\.safetensors and config\.json"):
        botvision.load(tmp_path)


def test_a_run_folder_names_its_weights(run):
    with pytest.raises(BotvisionError, match=r"model\.safetensors") as raised:
        botvision.load(run.path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [0, -32])
def test_an_image_size_that_cannot_be(size, run):
    with pytest.raises(ValueError, match=f"image_size: expected .*got {size}"):
        botvision.load(run.best, image_size=size)
