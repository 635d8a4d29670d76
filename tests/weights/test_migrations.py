"""Weights files of earlier formats give the results that they gave when they were written.

``format_0`` holds two tiny models that version 0.1.0 trained before the format had a number.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import botvision
from botvision.errors import BotvisionError
from botvision.tasks.publish import save_pretrained
from botvision.weights.file import read_description, read_tensors, save_weights
from botvision.weights.migrations import from_format_0

FORMAT_0 = Path(__file__).parent / "format_0"
CLASSES = ("black", "blue", "cyan", "green", "red", "white", "yellow")
# As that version predicted them.
PROBABILITIES = [0.163597, 0.137913, 0.145107, 0.159828, 0.131254, 0.136539, 0.125761]
SCORES = [0.114408, 0.113240, 0.113095, 0.112776, 0.112392, 0.112273, 0.112265, 0.112175]
BOXES = [
    [0.050451, 34.080761, 4.412429, 40.0],
    [0.039841, 28.172602, 4.412223, 40.0],
    [0.061813, 25.217154, 7.344413, 40.0],
    [18.948780, 3.031360, 47.319870, 40.0],
]


@pytest.fixture
def image():
    row, column = np.mgrid[:40, :48]
    return np.stack([5 * column, 6 * row, 3 * (row + column)], 2).astype(np.uint8)


def test_a_classifier_of_format_0(image):
    path = FORMAT_0 / "classifier.safetensors"
    predictor = botvision.load(path, device="cpu")
    assert predictor.classes == CLASSES
    assert predictor.description.format == 1
    found = predictor(image)
    in_order = found.confidence[np.argsort(found.class_id)]
    assert in_order == pytest.approx(PROBABILITIES, abs=1e-5)
    described = predictor.description
    assert described.input.crop == 1.0
    assert described.input.memory_format == "channels_last"
    assert described.input.precision == "float32"
    assert described.metrics["top1"] >= 0
    assert described.made_by["step"] == 8


def test_a_detector_of_format_0(image):
    predictor = botvision.load(FORMAT_0 / "detector.safetensors", device="cpu")
    assert predictor.task == "instance_segmentation"
    assert predictor.classes == tuple("0123456789")
    assert [each.id for each in predictor.description.classes] == list(range(1, 11))
    found = predictor(image, threshold=0.0)
    assert found.confidence[:8].tolist() == pytest.approx(SCORES, abs=1e-4)
    assert np.allclose(found.xyxy[:4], BOXES, atol=1e-2)
    assert set(found.class_id) == {9}
    assert set(found.data["class_name"]) == {"8"}


@pytest.mark.parametrize("name", ["classifier", "detector"])
def test_a_migrated_file_is_published_and_written_in_the_new_format(name, image, tmp_path):
    path = FORMAT_0 / f"{name}.safetensors"
    first = botvision.load(path, device="cpu")
    save_weights(tmp_path / "again.safetensors", first.model, first.description)
    assert read_description(tmp_path / "again.safetensors") == first.description
    save_pretrained(path, tmp_path / "published")
    expected = first(image, threshold=0.0).confidence
    for source in (tmp_path / "again.safetensors", tmp_path / "published"):
        found = botvision.load(source, device="cpu")(image, threshold=0.0)
        assert np.array_equal(found.confidence, expected)


def test_the_settings_of_detr_are_renamed():
    with safe_open(FORMAT_0 / "detector.safetensors", framework="pt") as file:
        assert '"format"' not in file.metadata()["botvision"]
    old = {
        "model": {
            "detector": "detr",
            "backbone": "botnet_tiny",
            "image_size": 64,
            "queries": 5,
            "width": 16,
            "heads": 2,
            "feedforward_width": 32,
            "batch_norm": "synchronised",
        },
        "categories": [{"id": 7, "name": "thing"}],
        "recipe": {"training": {"precision": "bfloat16", "channels_last": False}},
    }
    model = from_format_0(old)["model"]
    assert model == {
        "detector": "detr",
        "backbone": "botnet_tiny",
        "image_size": 64,
        "num_queries": 5,
        "hidden_dim": 16,
        "num_heads": 2,
        "dim_feedforward": 32,
        "batch_norm": "synchronized",
    }


@pytest.mark.parametrize("key", ["model", "recipe", "classes", "mean", "crop_share"])
def test_what_is_missing_in_format_0_is_named(key, tmp_path):

    source = FORMAT_0 / "classifier.safetensors"
    with safe_open(source, framework="pt") as file:
        content = json.loads(file.metadata()["botvision"])
    del content[key]
    path = tmp_path / "a.safetensors"
    save_file(read_tensors(source), path, metadata={"botvision": json.dumps(content)})
    with pytest.raises(BotvisionError, match=rf"a\.safetensors: .*format 0.*'{key}'") as raised:
        botvision.load(path)
    assert "\n" not in str(raised.value)


def test_a_network_published_before_the_format_had_a_number(image, tmp_path):

    torch.manual_seed(0)
    network = botvision.create_model("botnet_tiny", num_classes=2, img_size=64)
    folder = save_pretrained(network, tmp_path, labels=["ant", "bee"])
    expected = botvision.load(folder)(image).confidence
    config = {"task": "image-classification", **json.loads((folder / "config.json").read_text())}
    tensors = read_tensors(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"botvision": json.dumps(config)})
    found = botvision.load(folder)(image)
    assert np.array_equal(found.confidence, expected)
