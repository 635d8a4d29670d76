"""Descriptions of earlier formats are rewritten as a whole, or refused in one line."""

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

FORMAT_0 = Path(__file__).parent / "files" / "format_0"


@pytest.fixture
def image():
    row, column = np.mgrid[:40, :48]
    return np.stack([5 * column, 6 * row, 3 * (row + column)], 2).astype(np.uint8)


@pytest.mark.parametrize("name", ["classifier", "mask_rcnn"])
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
    with safe_open(FORMAT_0 / "mask_rcnn.safetensors", framework="pt") as file:
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
