"""The attention of a run is measured at each evaluation, drawn, and spoken of if it collapses."""

import json

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from botvision.attention import LayerHealth, attention_health
from botvision.attention.rows import attention_layers
from botvision.datasets.layouts import find_coco_split
from botvision.images.decode import read_image
from botvision.inspection.attention_health import collapse_note, health_record, tracked_values
from botvision.predict.loading import load
from botvision.recipes.running import train_recipe
from botvision.tasks.task import find_task
from botvision.training.loop import train
from botvision.training.run_folder import RunFolder

LAYERS = [f"backbone.body.layer4.{block}.conv2.attention" for block in (0, 1)]


def of_evaluations(run):
    return [record["attention"] for record in run.history() if "metrics" in record]


def test_every_evaluation_is_measured(trained_run, handwriting):
    records = of_evaluations(trained_run)
    assert [list(record) for record in records] == [LAYERS] * 2
    # The last ones are those of the weights in the file, for the validation images.
    where = find_coco_split(handwriting, "val")
    names = [each["file_name"] for each in json.loads(where.annotations.read_text())["images"]]
    images = [read_image(where.images / name) for name in names]
    model = load(trained_run.last, "cpu").model
    pixels = [pil_to_tensor(image) / 255 for image in images]
    for found, expected in zip(records[-1].values(), attention_health(model, pixels), strict=True):
        assert found["map_size"] == list(expected.map_size)
        for name in ("entropy", "mutual_information", "content_std", "position_std", "distance"):
            # The evaluation runs in bfloat16.
            assert found[name] == pytest.approx(getattr(expected, name), rel=0.05, abs=0.002)
        assert found["overlap"] == pytest.approx(expected.overlap, rel=0.05)
        assert found["collapsed"] == list(expected.collapsed)


def test_figure(trained_run):
    with Image.open(trained_run.path / "attention.png") as figure:
        assert figure.width > 1000
        assert figure.height > 600  # the curves alone have 420
        colors = figure.convert("RGB").getcolors(2**24)
    assert len(colors) > 1000


def test_networks_without_attention(make_recipe, tmp_path, undrawn):
    recipe = make_recipe("model.backbone=resnet18", "training.max_steps=1")
    train_recipe(recipe, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert not (run.path / "attention.png").exists()
    assert all("attention" not in record for record in run.history())


def test_a_collapse_is_said_once(make_recipe, tmp_path, display, undrawn):
    recipe = make_recipe("training.learning_rate=1e-6")
    task = find_task(recipe.task).build(recipe)
    task.description = task.description.model_copy(update={"recipe": recipe.model_dump()})
    with torch.no_grad():
        for _, layer in attention_layers(task.model):
            layer.qkv.weight[: 2 * layer.dim] += 0.5  # all queries and keys are alike
            layer.qkv.weight[: 2 * layer.dim] *= 10
    run = RunFolder.create(tmp_path / "run", recipe.model_dump(mode="json"))
    train(task, recipe.training, run, display=display)
    (shown,) = display
    assert len(shown.evaluations) == 2
    (note,) = [note for note in shown.notes if "collapsed" in note]
    assert "of 8 heads have collapsed" in note
    assert "training.attention_lr_scale" in note
    assert all(
        len(layer["collapsed"]) for record in of_evaluations(run) for layer in record.values()
    )


def test_a_resumed_run_keeps_its_figures(run_copy, display):
    before = of_evaluations(run_copy)
    run_copy.rewind(4, 4)
    assert of_evaluations(run_copy) == before[:1]


def layer_health(name="layer", **changes):
    figures = {
        "map_size": (4, 4),
        "entropy": (0.9, 0.1, 0.1),
        "mutual_information": (0.5, 0.2, 2.7),
        "content_std": (1.0, 2.0, 3.0),
        "position_std": (0.0, 0.5, 1.0),
        "distance": (1.0, 1.0, 1.0),
        "overlap": 0.5,
    }
    return LayerHealth(name, **{**figures, **changes})


def test_note_names_the_heads():
    healthy = layer_health(entropy=(0.5,) * 3)
    assert collapse_note([healthy]) == collapse_note([]) == ""
    note = collapse_note([healthy, layer_health("backbone.body.layer4.1.conv2.attention")])
    assert note.startswith("attention: 1 of 6 heads have collapsed")
    assert "(layer4.1: 1)" in note


def test_records_are_json():
    record = health_record([layer_health()])
    assert json.loads(json.dumps(record))["layer"]["collapsed"] == [1]
    assert tracked_values([layer_health()]) == {
        "attention/layer/entropy": pytest.approx(1.1 / 3),
        "attention/layer/mutual_information": pytest.approx(3.4 / 3),
        "attention/layer/content_std": 2,
        "attention/layer/position_std": 0.5,
    }
