"""DETR through the same commands as Mask R-CNN, and what recipes say about it."""

import json

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

import botvision
from botvision.errors import BotvisionError
from botvision.recipes.reading import check_recipe, read_recipe
from botvision.recipes.running import build_task, train_recipe
from botvision.tasks.detection.settings import AnyDetector, DetrSettings, RcnnSettings
from botvision.training.run_folder import RunFolder
from botvision.weights.file import read_description

TINY = (
    "model.backbone=botnet_tiny",
    "model.image_size=64",
    "model.num_queries=7",
    "model.hidden_dim=32",
    "model.num_heads=4",
    "model.dim_feedforward=48",
    "model.encoder_layers=1",
    "model.decoder_layers=2",
    "training.epochs=2",
    "training.batch_size=4",
    "training.log_every=1",
    "training.evaluate_every=2",
    "training.save_every=1",
    "training.num_workers=0",
)


@pytest.fixture(scope="module")
def data(handwriting, tmp_path_factory):
    """The scenes, one of them without digits and one cut to another shape."""
    import shutil

    from PIL import Image

    folder = tmp_path_factory.mktemp("detr") / "data"
    shutil.copytree(handwriting, folder)
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        empty, cut = content["images"][:2]
        content["annotations"] = [
            each for each in content["annotations"] if each["image_id"] != empty["id"]
        ]
        with Image.open(folder / "images" / cut["file_name"]) as image:
            image.resize((64, 40)).save(folder / "images" / cut["file_name"])
        cut["height"] = 40
        for each in content["annotations"]:
            if each["image_id"] == cut["id"]:
                x, y, width, height = each["bbox"]
                each["bbox"] = [x, y * 40 / 64, width, height * 40 / 64]
                each["segmentation"] = []
        path.write_text(json.dumps(content))
    return folder


def arguments(data, runs):
    overrides = [part for each in TINY for part in ("--set", each)]
    return ["train", "botnet50_detr", "--data", data, "--runs", runs, *overrides, "--json"]


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    """A run of 2 epochs of 2 steps."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    recipe = read_recipe("botnet50_detr", [*TINY, f"data.folder={json.dumps(str(data))}"])
    train_recipe(recipe, path)
    return RunFolder(path)


def test_train_resume_val_predict_and_attention_map(data, whole_run, cli, tmp_path, monkeypatch):
    append = RunFolder.append

    def interrupting(self, record):
        if record["step"] == 3:
            raise KeyboardInterrupt
        append(self, record)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "append", interrupting)
        assert cli(*arguments(data, tmp_path))[0] == 130
    run = RunFolder(tmp_path / "detection" / "botnet50_detr")
    status, out, error = cli("train", "--resume", run.path, "--json")
    assert status == 0, error
    metrics = json.loads(out)["metrics"]
    assert {name.split("_")[0] for name in metrics} == {"box"}
    # The run that was interrupted is the one that was not.
    assert run.metrics.read_text() == whole_run.metrics.read_text()
    found, expected = load_file(run.last), load_file(whole_run.last)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    status, out, error = cli("val", run.last, "--json")
    assert status == 0, error
    assert json.loads(out) == metrics
    image = data / "images" / "val_000001.jpg"
    status, out, error = cli(
        *("predict", image, "--weights", run.last, "--threshold", 0),
        *("--output", tmp_path / "predictions", "--json"),
    )
    assert status == 0, error
    content = json.loads(out)
    assert len(content["annotations"]) == 7
    assert {each["category_id"] for each in content["annotations"]} <= {
        10 * digit + 3 for digit in range(1, 11)
    }
    status, out, error = cli(
        *("attention-map", image, "--at", "10,20", "--weights", run.last),
        *("--output", tmp_path / "map.png"),
    )
    assert status == 0, error
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_run_folder(whole_run):
    assert read_description(whole_run.last).model["detector"] == "detr"
    names = {path.name for path in whole_run.path.iterdir()}
    assert {"train_batch0.jpg", "val_predictions.jpg", "results.png", "best.safetensors"} <= names
    losses = [record["losses"] for record in whole_run.history() if "losses" in record]
    assert len(losses) == 4
    assert set(losses[0]) == {"loss_classifier", "loss_box_reg", "loss_giou", "loss_auxiliary"}


def test_loaded_weights_find_what_the_run_found(whole_run, data):
    predictor = botvision.load(whole_run.last)
    reported = json.loads((whole_run.path / "predictions.json").read_text())
    content = json.loads((data / "annotations" / "instances_val.json").read_text())
    for image in content["images"]:
        found = predictor(data / "images" / image["file_name"], threshold=0.0)
        expected = [each for each in reported if each["image_id"] == image["id"]]
        assert found.mask is None
        assert len(found) == len(expected) == 7
        boxes = np.array([each["bbox"] for each in expected])
        boxes[:, 2:] += boxes[:, :2]
        assert np.allclose(found.xyxy, boxes, atol=0.3)  # bfloat16, in batches of others
        scores = np.array([each["score"] for each in expected])
        assert np.allclose(found.confidence, scores, atol=0.02)


def test_attention_maps_of_what_is_shown(whole_run, data):
    from botvision.images.decode import read_image
    from botvision.inspection.attention_maps import attention_maps

    predictor = botvision.load(whole_run.last)
    image = read_image(data / "images" / "val_000001.jpg")
    assert image.size == (64, 40)
    maps = attention_maps(predictor, image, (63, 39))
    assert [each.layer for each in maps] == [
        f"backbone.body.layer4.{block}.conv2.attention" for block in (0, 1)
    ]
    assert [tuple(each.heads.shape) for each in maps] == [(4, 3, 4), (4, 2, 2)]


@pytest.mark.parametrize("detector", ["detr", "faster_rcnn"])
def test_training_images_are_padded_by_the_detector_alone(detector, data):
    recipe = {
        "name": "x",
        "model": {"detector": detector, "backbone": "botnet_tiny", "image_size": 64},
        "data": {"folder": str(data), "scale_jitter": [0.5, 0.7], "flip": 0.0},
        "training": {"batch_size": 1, "precision": "float32"},
    }
    task = build_task(check_recipe(recipe, "x"))
    sides = [max(task.train_data()[(0, index)][0].shape) for index in range(4)]
    assert all(side < 46 if detector == "detr" else side == 64 for side in sides)


def test_the_recipe_is_that_of_the_authors():
    recipe = read_recipe("botnet50_detr")
    assert recipe.kind == "detection"
    # What it writes out are the defaults, but for the name.
    assert recipe.model == DetrSettings()
    assert 199 < 300 * recipe.training.milestones[0] <= 201
    assert recipe.training.backbone_learning_rate == recipe.training.learning_rate / 10


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.num_qeries=1",
            r"botnet50_detr: model\.num_qeries: no such key; did you mean num_queries",
        ),
        (
            "model.fpn_channels=8",
            r"model\.fpn_channels: no such key; known are detector, .*queries",
        ),
        (
            "model.num_queries=0",
            r"botnet50_detr: model\.num_queries: .*greater than or equal to 1, got 0",
        ),
        ("model.dropout=2", r"model\.dropout: .*got 2"),
        (
            "model.detector=dert",
            r"expected one of mask_rcnn, faster_rcnn, detr, got 'dert'; did you mean detr\?",
        ),
        ("model.detector=[detr]", r"model\.detector: expected one of mask_rcnn, .*, got "),
        ("model.detector=mask_rcnn", r"model\.(num_queries|hidden_dim): no such key"),
        ("model=3", r"botnet50_detr: model: .*got 3"),
        ("model.backbone.x=3", r"override model\.backbone\.x=3: backbone is a value"),
    ],
)
def test_mistake(override, message):
    with pytest.raises(BotvisionError, match=message) as raised:
        read_recipe("botnet50_detr", [override])
    assert "\n" not in str(raised.value)


def test_without_a_name_the_detector_is_mask_rcnn():
    # As in the files written before there was another.
    assert check_recipe({"name": "x"}, "x").model == RcnnSettings()
    model = {"backbone": "resnet18", "fpn_channels": 8}
    assert check_recipe({"name": "x", "model": model}, "x").model == RcnnSettings(**model)
    assert TypeAdapter(AnyDetector).validate_python(model).detector == "mask_rcnn"


@pytest.mark.parametrize(
    "settings",
    [
        RcnnSettings(),
        RcnnSettings(detector="faster_rcnn", fpn_channels=8),
        DetrSettings(hidden_dim=64),
    ],
    ids=lambda settings: settings.detector,
)
def test_settings_round_trip(settings):
    assert TypeAdapter(AnyDetector).validate_python(settings.model_dump(mode="json")) == settings
    assert TypeAdapter(AnyDetector).validate_python(settings) == settings
    assert settings.masks == (settings.detector == "mask_rcnn")
    assert settings.pads_by_itself == (settings.detector == "detr")
