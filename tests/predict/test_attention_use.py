"""Health of a weights file's attention, and its metrics with disturbed attention."""

import json

import pytest
import torch

from botvision.attention import attention_health
from botvision.attention.ablation import ABLATIONS
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.predict import attention_use
from botvision.predict.attention_use import measure_attention
from botvision.predict.evaluation import evaluate
from botvision.predict.loading import load
from botvision.tasks.task import find_task

LAYERS = tuple(f"backbone.body.layer4.{block}.conv2.attention" for block in (0, 1))
HEADLINES = find_task("detection").headlines


def headlines(metrics):
    return {name: metrics[name] for name in HEADLINES}


def test_health_is_that_of_the_training(trained_run):
    report = measure_attention(trained_run.last)
    assert report.images == 6
    assert report.metrics is None
    assert report.ablations == ()
    last = [record["attention"] for record in trained_run.history() if "metrics" in record][-1]
    assert [layer.layer for layer in report.layers] == list(last)
    for layer in report.layers:
        expected = last[layer.layer]
        assert list(layer.map_size) == expected["map_size"]
        assert list(layer.entropy) == pytest.approx(expected["entropy"], rel=1e-3)
        assert list(layer.content_std) == pytest.approx(expected["content_std"], rel=1e-2)


def test_no_more_images_than_needed(trained_run, monkeypatch):
    monkeypatch.setattr(attention_use, "_IMAGES", 2)
    seen = []
    predictor = load(trained_run.best)
    report = measure_attention(predictor, progress=lambda *done: seen.append(done))
    assert report.images == 2
    assert seen == [("measure", 2, 2)]
    assert not any(module._forward_pre_hooks for module in predictor.model.backbone.modules())


@pytest.fixture(scope="module")
def ablated_report(trained_run, handwriting):
    return measure_attention(trained_run.best, handwriting, ablate=True)


def test_every_ablation_of_all_layers_and_of_each(ablated_report, trained_run):
    assert ablated_report.metrics == headlines(evaluate(trained_run.best))
    found = [(each.ablation, each.layers) for each in ablated_report.ablations]
    places = (LAYERS, LAYERS[:1], LAYERS[1:])
    assert found == [(ablation, layers) for ablation in ABLATIONS for layers in places]


def test_no_positions_is_the_model_with_tables_of_zeros(ablated_report, trained_run):
    predictor = load(trained_run.best)
    of = {each.layers: each for each in ablated_report.ablations if each.ablation == "no_positions"}
    layer = predictor.model.get_submodule(LAYERS[0])
    for table in layer.position.parameters():
        torch.nn.init.zeros_(table)
    assert of[LAYERS[:1]].metrics == headlines(evaluate(predictor))
    layer = predictor.model.get_submodule(LAYERS[1])
    for table in layer.position.parameters():
        torch.nn.init.zeros_(table)
    assert of[LAYERS].metrics == headlines(evaluate(predictor))


def test_classifiers(train_classifier, colors):
    run = train_classifier()
    predictor = load(run.best)
    report = measure_attention(predictor, ablate=True)
    expected = evaluate(predictor)
    assert report.metrics == {
        name: expected[name] for name in find_task("classification").headlines if name in expected
    }
    assert [each.ablation for each in report.ablations] == list(ABLATIONS)  # of its one layer
    # The same images through the network at once.
    images = sorted((colors / "val").rglob("*.png"))[: report.images]
    batch = torch.stack([predictor.transform(read_image(path)) for path in images])
    for found, each in zip(report.layers, attention_health(predictor.model, batch), strict=True):
        assert found.entropy == pytest.approx(each.entropy, rel=0.02)


def test_network_without_attention(make_recipe, describe_detector, tmp_path):
    from botvision.tasks.detection.build import build_detector
    from botvision.weights.file import save_weights

    recipe = make_recipe("model.backbone=resnet18")
    path = tmp_path / "best.safetensors"
    save_weights(path, build_detector(recipe.model, 2), describe_detector(recipe))
    with pytest.raises(BotvisionError, match=r"^mask_rcnn resnet18: expected a network with att"):
        measure_attention(path, tmp_path)


def test_command(cli, trained_run, handwriting):
    status, out, err = cli("attention-health", trained_run.best, "--data", handwriting, "--json")
    assert status == 0, err
    content = json.loads(out)
    assert [layer["layer"] for layer in content["layers"]] == list(LAYERS)
    assert content["layers"][0]["collapsed"] == []
    assert content["metrics"] is None
    status, out, err = cli("attention-health", trained_run.best, "--ablate")
    assert status == 0, err
    for text in ("layer4.0", "4x4", "as trained", "other query", "of their attention in common"):
        assert text in err + out


def test_command_with_other_data(cli, trained_run, tmp_path):
    status, out, err = cli("attention-health", trained_run.best, "--data", tmp_path)
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not out
