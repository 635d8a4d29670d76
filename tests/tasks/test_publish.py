"""Runs as folders for the Hub: what is loaded from them is what was trained, and their cards."""

import json

import numpy as np
import pytest
import timm
import torch
import yaml

import botvision
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.tasks.classification.build import build_classifier
from botvision.tasks.classification.settings import ClassifierSettings
from botvision.tasks.publish import save_pretrained
from botvision.weights.file import (
    read_description,
    read_tensors,
    save_weights,
    write_tensors,
)
from botvision.weights.hub import from_pretrained


@pytest.fixture(scope="module")
def published(trained_run, tmp_path_factory):
    return save_pretrained(trained_run.path, tmp_path_factory.mktemp("hub") / "digits")


@pytest.fixture(scope="module")
def card(published):
    return (published / "README.md").read_text()


def test_a_detector_comes_back(published, predictor, val_image):
    loaded = botvision.load(published)
    ours, theirs = loaded(val_image, threshold=0.0), predictor(val_image, threshold=0.0)
    assert len(ours) == len(theirs) > 0
    assert (ours.xyxy == theirs.xyxy).all()
    assert loaded.description.classes == predictor.description.classes


def test_either_weights_file_may_be_given(trained_run, published, tmp_path):
    save_pretrained(trained_run.last, tmp_path)
    assert read_description(tmp_path / "model.safetensors").made_by["step"] == 8
    assert (tmp_path / "results.png").read_bytes() == (published / "results.png").read_bytes()


def test_configuration_of_a_detector(published, predictor):
    config = json.loads((published / "config.json").read_text())
    assert config["task"] == "instance-segmentation"
    assert config["model"]["backbone"] == predictor.description.model["backbone"]
    assert config["label_names"] == list(predictor.classes)
    assert config["label_ids"] == [each.id for each in predictor.description.classes]
    assert config["num_classes"] == len(predictor.classes)
    assert config["input_size"] == [3, 64, 64]
    assert config["mean"] == [0.485, 0.456, 0.406]
    assert config["std"] == [0.229, 0.224, 0.225]


def test_no_folder_of_this_machine_is_published(published, handwriting, trained_run):
    described = read_description(published / "model.safetensors")
    assert described.recipe["data"]["folder"] == handwriting.name
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
    metrics = read_description(trained_run.best).metrics
    assert f"| mask_ap | {metrics['mask_ap']:.4f} |" in card
    assert f"`{handwriting.name}`" in card
    assert all(name in card for name in predictor.classes)
    assert 'botvision.load("hf-hub:OWNER/digits")' in card
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe["training"] == json.loads(json.dumps(predictor.description.recipe["training"]))
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


def test_a_class_named_like_a_folder_keeps_its_name(trained_run, tmp_path):
    # Open Images names its classes so.
    description = read_description(trained_run.best)
    first, *others = description.classes
    classes = (first.model_copy(update={"name": "/m/01yrx"}), *others)
    changed = description.model_copy(update={"classes": classes})
    write_tensors(tmp_path / "a.safetensors", read_tensors(trained_run.best), changed)
    folder = save_pretrained(tmp_path / "a.safetensors", tmp_path / "model")
    assert botvision.load(folder).classes[0] == "/m/01yrx"
    assert "/m/01yrx" in (folder / "README.md").read_text()


def test_a_detector_is_no_network(published):
    with pytest.raises(BotvisionError, match=r"such as a detector, which botvision\.load reads"):
        from_pretrained(published)


def test_a_run_whose_figure_is_a_link(run_copy, tmp_path):
    (run_copy.path / "results.png").unlink()
    (run_copy.path / "results.png").symlink_to(run_copy.recipe)
    with pytest.raises(BotvisionError, match=r"results\.png: expected a file, got a link"):
        save_pretrained(run_copy.path, tmp_path / "model")


def test_weights_that_describe_something_else(describe, tmp_path):
    description = describe(task="detection", model={"detector": "yolo"})
    save_weights(tmp_path / "a.safetensors", torch.nn.Linear(1, 1), description)
    with pytest.raises(BotvisionError, match="expected the weights of a detector"):
        save_pretrained(tmp_path / "a.safetensors", tmp_path / "model")
    with pytest.raises(BotvisionError, match="no such weights file"):
        save_pretrained(tmp_path / "b.safetensors", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_run_describes_itself(trained_run, tmp_path):
    with pytest.raises(ValueError, match="expected none with a weights file"):
        save_pretrained(trained_run.path, tmp_path, labels=["a"])


@pytest.fixture(scope="module")
def files(colors):
    return sorted((colors / "val").rglob("*.png"))[::4]


def test_a_classifier_with_our_stem(classifier_run, files, tmp_path):
    folder = save_pretrained(classifier_run.path, tmp_path / "colors")
    loaded, trained = botvision.load(folder), botvision.load(classifier_run.best)
    assert loaded.classes == trained.classes
    assert torch.equal(loaded.probabilities(files), trained.probabilities(files))
    text = (folder / "README.md").read_text()
    assert "botvision.load(" in text
    assert "7: black, blue" in text
    assert "| top5 |" in text
    assert (folder / "calibration.png").is_file()
    with pytest.raises(BotvisionError, match=r"which botvision\.load reads"):
        from_pretrained(folder)


def test_a_classifier_that_timm_reads(train_classifier, files, tmp_path):
    run = train_classifier("model.stem=imagenet", "model.image_size=64", "training.epochs=1")
    folder = save_pretrained(run.path, tmp_path / "colors")
    loaded, trained = botvision.load(folder), botvision.load(run.best)
    assert loaded.description.input == trained.description.input
    assert torch.equal(loaded.probabilities(files), trained.probabilities(files))
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(network)
    assert tuple(config["input_size"]) == (3, 64, 64)
    assert config["crop_pct"] == 1.0
    assert network.pretrained_cfg["label_names"] == list(loaded.classes)
    for name, tensor in read_tensors(run.best).items():
        assert torch.equal(network.state_dict()[name], tensor)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_args"]["img_size"] == 64
    assert "timm.create_model(" in (folder / "README.md").read_text()


def expected_of(network, path, side):
    """Probabilities by timm's own preparation of an image."""
    config = timm.data.resolve_model_data_config(network)
    config["input_size"] = (3, side, side)
    seen = timm.data.create_transform(**config)(read_image(path))[None]
    with torch.no_grad():
        return network.eval()(seen).softmax(1)[0]


def test_a_network_that_was_never_trained_here(files, tmp_path):
    torch.manual_seed(0)
    network = botvision.create_model("botnet_tiny", num_classes=2, img_size=64)
    save_pretrained(network, tmp_path, labels=["ant", "bee"])
    predictor = botvision.load(tmp_path)
    assert predictor.classes == ("ant", "bee")
    assert predictor.input_size == 64
    found = predictor(files[0])
    assert float(found.confidence.sum()) == pytest.approx(1)
    expected = expected_of(network, files[0], 64).numpy()
    assert np.allclose(found.confidence, expected[found.class_id], atol=1e-6)


def test_a_network_that_was_botified(files, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("resnet26d", num_classes=3, channels=(16, 32, 64, 128))
    botvision.botify(network, stride_one=True, num_heads=8)
    save_pretrained(network, tmp_path)
    predictor = botvision.load(tmp_path)
    found = predictor(files[0])
    expected = expected_of(network, files[0], 224).numpy()
    assert np.allclose(found.confidence, expected[found.class_id], atol=1e-6)
    again = save_pretrained(tmp_path / "model.safetensors", tmp_path / "again")
    assert np.array_equal(botvision.load(again)(files[0]).confidence, found.confidence)


def test_timms_own_folder(files, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=True)
    predictor = botvision.load(tmp_path)
    assert predictor.classes == ("0", "1", "2")
    found = predictor(files[0])
    expected = expected_of(network, files[0], predictor.input_size).numpy()
    assert np.allclose(found.confidence, expected[found.class_id], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"pretrained_cfg": {}}, "KeyError.*input_size"),
        ({"model_args": {"num_classes": "many"}}, "ValueError.*many"),
        ({"pretrained_cfg": {"input_size": [3, 64, 64], "mean": "x", "std": [1]}}, "mean"),
        ({"pretrained_cfg": []}, "config.json as timm writes it"),
        ({"model_args": {"pretrained": True}}, "got 'pretrained'"),
        ({"model_args": {"num_classes": 5}, "label_names": None}, "weights of another model"),
        ({"architecture": "botnet_tinny"}, "'botnet_tinny' is unknown"),
    ],
)
def test_a_configuration_that_is_wrong(changes, expected, tmp_path):
    network = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(BotvisionError, match=expected) as raised:
        botvision.load(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_classifier_that_a_recipe_botifies(describe, files, tmp_path):
    model = {
        "classifier": "resnet26",
        "classifier_arguments": {"channels": [8, 8, 16, 16]},
        "botify": {"position": "absolute"},
        "image_size": 64,
    }
    described = describe(model=model)
    network = build_classifier(ClassifierSettings(**model), 3).eval()
    save_weights(tmp_path / "a.safetensors", network, described)
    save_pretrained(tmp_path / "a.safetensors", tmp_path / "published")
    expected = botvision.load(tmp_path / "a.safetensors").probabilities(files)
    assert torch.equal(botvision.load(tmp_path / "published").probabilities(files), expected)
    again = from_pretrained(tmp_path / "published")
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again(images), network(images))
