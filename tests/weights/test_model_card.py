"""Detectors in the Hub's layout, and the model card that is made from their run."""

import json

import pytest
import torch
import yaml

import botvision
from botvision.errors import BotvisionError
from botvision.weights.file import (
    read_description,
    read_tensors,
    save_weights,
    write_tensors,
)
from botvision.weights.hub import from_pretrained, save_pretrained
from botvision.weights.model_card import without_folders


@pytest.fixture(scope="module")
def published(trained_run, tmp_path_factory):
    return save_pretrained(trained_run.path, tmp_path_factory.mktemp("hub") / "digits")


@pytest.fixture(scope="module")
def card(published):
    return (published / "README.md").read_text()


def test_a_detector_comes_back(published, predictor, val_image):
    loaded = botvision.load(published)
    ours, theirs = loaded(val_image, score=0.0), predictor(val_image, score=0.0)
    assert len(ours) == len(theirs) > 0
    assert (ours.xyxy == theirs.xyxy).all()
    assert loaded.categories == predictor.categories


def test_either_weights_file_may_be_given(trained_run, published, tmp_path):
    save_pretrained(trained_run.last, tmp_path)
    assert read_description(tmp_path / "model.safetensors")["step"] == 8
    assert (tmp_path / "results.png").read_bytes() == (published / "results.png").read_bytes()


def test_configuration_of_a_detector(published, predictor):
    config = json.loads((published / "config.json").read_text())
    assert config["task"] == "instance-segmentation"
    assert config["model"]["backbone"] == predictor.description["model"]["backbone"]
    assert config["label_names"] == [category.name for category in predictor.categories]
    assert config["label_ids"] == [category.id for category in predictor.categories]
    assert config["num_classes"] == len(predictor.categories)
    assert config["input_size"] == [3, 64, 64]
    assert config["mean"] == [0.485, 0.456, 0.406]
    assert config["std"] == [0.229, 0.224, 0.225]


def test_no_folder_of_this_machine_is_published(published, handwriting, trained_run):
    described = read_description(published / "model.safetensors")
    assert described["recipe"]["data"]["folder"] == handwriting.name
    for path in published.iterdir():
        content = path.read_bytes()
        for folder in (handwriting.parent, trained_run.path.parent, published.parent):
            assert str(folder).encode() not in content, path.name


def test_front_matter(card):
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "botvision"
    assert head["pipeline_tag"] == "image-segmentation"
    assert "botnet" in head["tags"]


def test_the_card_shows_the_run(card, published, trained_run, predictor, handwriting):
    metrics = read_description(trained_run.best)["metrics"]
    assert f"| mask_ap | {metrics['mask_ap']:.4f} |" in card
    assert f"`{handwriting.name}`" in card
    assert all(category.name in card for category in predictor.categories)
    assert 'botvision.load("hf-hub:OWNER/digits")' in card
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe["training"] == json.loads(json.dumps(predictor.description["recipe"]["training"]))
    environment = json.loads((trained_run.path / "environment.json").read_text())
    assert f"torch {environment['packages']['torch']}" in card
    assert environment["command"][0] in card
    for name in ("results.png", "val_predictions.jpg"):
        assert f"]({name})" in card
        assert (published / name).read_bytes() == (trained_run.path / name).read_bytes()


def test_the_command_names_no_folder_of_this_machine(run_copy, tmp_path):
    environment = run_copy.path / "environment.json"
    content = json.loads(environment.read_text())
    content["command"] = ["botvision", "train", "--data", "/home/me/digits", "--set", "a=/tmp/b"]
    environment.write_text(json.dumps(content))
    folder = save_pretrained(run_copy.path, tmp_path / "model")
    assert "\nbotvision train --data digits --set a=b\n" in (folder / "README.md").read_text()


def test_weights_alone_have_a_card_without_a_run(trained_run, tmp_path):
    weights = tmp_path / "alone.safetensors"
    weights.write_bytes(trained_run.best.read_bytes())
    folder = save_pretrained(weights, tmp_path / "model")
    text = (folder / "README.md").read_text()
    assert "| mask_ap |" in text
    assert "```bash" not in text
    assert "![" not in text


def test_a_category_named_like_a_folder_keeps_its_name(trained_run, tmp_path):
    # Open Images names its classes so.
    description = read_description(trained_run.best)
    description["categories"][0]["name"] = "/m/01yrx"
    write_tensors(tmp_path / "a.safetensors", read_tensors(trained_run.best), description)
    folder = save_pretrained(tmp_path / "a.safetensors", tmp_path / "model")
    assert botvision.load(folder).categories[0].name == "/m/01yrx"
    assert "/m/01yrx" in (folder / "README.md").read_text()


def test_a_detector_is_no_network(published):
    with pytest.raises(BotvisionError, match=r"such as a detector, which botvision\.load reads"):
        from_pretrained(published)


def test_a_run_whose_image_is_a_link(run_copy, tmp_path):
    (run_copy.path / "results.png").unlink()
    (run_copy.path / "results.png").symlink_to(run_copy.recipe)
    with pytest.raises(BotvisionError, match=r"results\.png: expected a file, got a link"):
        save_pretrained(run_copy.path, tmp_path / "model")


def test_weights_that_describe_something_else(tmp_path):
    save_weights(tmp_path / "a.safetensors", torch.nn.Linear(1, 1), {"model": {"name": "x"}})
    with pytest.raises(BotvisionError, match="expected the weights of a detector"):
        save_pretrained(tmp_path / "a.safetensors", tmp_path / "model")
    with pytest.raises(BotvisionError, match="no such weights file"):
        save_pretrained(tmp_path / "b.safetensors", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_run_describes_itself(trained_run, tmp_path):
    with pytest.raises(ValueError, match="expected none beside a weights file"):
        save_pretrained(trained_run.path, tmp_path, labels=["a"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/somewhere/data", "data"),
        ("--data=/somewhere/data", "--data=data"),
        ('data.folder="/somewhere/data"', "data.folder=data"),
        ("C:\\somewhere\\data", "data"),
        ("relative/data", "relative/data"),
        ("a=b", "a=b"),
        ({"a": ["/x/y", 1, None]}, {"a": ["y", 1, None]}),
        ('data.folder="hfds//home/ann/cats"', "data.folder=cats"),
        ("hfds/uoft-cs/cifar10", "hfds/uoft-cs/cifar10"),
        ("file:///home/ann/shards", "shards"),
        ("s3://bucket/shards", "s3://bucket/shards"),
    ],
)
def test_without_folders(value, expected):
    assert without_folders(value) == expected
