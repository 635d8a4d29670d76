"""Evaluation finds what the training found, and says what is wrong."""

import json
import shutil

import pytest
import torch

import botvision
from botvision.datasets.coco.file import read_annotations
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.predict.evaluation import evaluate
from botvision.tasks.classification.metrics import BEST_CLASSES
from botvision.tasks.detection import task as detection
from botvision.tasks.detection.metrics import CocoMetrics
from botvision.weights.file import read_description, read_tensors, write_tensors


def val(cli, *arguments):
    status, out, err = cli("val", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)


def error(cli, *arguments):
    status, _, err = cli(*arguments)
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def quiet(done, total):
    assert 0 < done <= total == 6


# Detectors.


def test_a_detectors_metrics_are_the_trainings(trained_run):
    for weights in (trained_run.best, trained_run.last):
        assert evaluate(weights, progress=quiet) == read_description(weights).metrics
    assert botvision.evaluate(str(trained_run.best)) == read_description(trained_run.best).metrics


@pytest.fixture
def found_again(trained_run, handwriting, tmp_path):
    """The data with some of the run's own boxes as truth, so that its AP is no zero.

    Its masks are those of a detector that has learned nothing: they do not fit their boxes.
    """
    folder = tmp_path / "data"
    shutil.copytree(handwriting, folder)
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    results = json.loads((trained_run.path / "predictions.json").read_text())
    content["annotations"] = [
        {
            **result,
            "id": number,
            "iscrowd": 0,
            "area": result["bbox"][2] * result["bbox"][3],
            "segmentation": [],
        }
        for number, result in enumerate(results[::3], start=1)
        if min(result["bbox"][2:]) > 1
    ]
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_val_finds_what_the_run_found(batch_size, trained_run, found_again):
    truth = read_annotations(found_again / "annotations" / "instances_val.json")
    expected = CocoMetrics(truth, masks=True)
    expected.process(json.loads((trained_run.path / "predictions.json").read_text()))
    metrics = expected.evaluate()
    assert metrics["box_ap"] > 0.2
    got = evaluate(trained_run.last, found_again, batch_size=batch_size, progress=quiet)
    assert got["box_ap"] == pytest.approx(metrics["box_ap"], abs=1e-3)
    assert got["mask_ap"] == pytest.approx(metrics["mask_ap"], abs=1e-3)
    if batch_size == 2:  # that of the run
        assert got == metrics


def test_a_detector_at_another_size(cli, trained_run, monkeypatch):
    sides = []

    def seen(model, *_, **__):
        sides.append(model.transform.max_size)
        return {"box_ap": 0.5}, []

    monkeypatch.setattr(detection, "evaluate_detector", seen)
    for options in ([], ["--image-size", 96]):
        status, _, _ = cli("val", trained_run.last, "--json", *options)
        assert status == 0
    assert sides == [read_description(trained_run.last).model["image_size"], 96]


def test_other_categories_are_named(trained_run, handwriting, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(handwriting, folder)
    path = folder / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "zero"
    path.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=r"expected classes of the weights, .*, got 'zero'"):
        evaluate(trained_run.best, folder)


@pytest.mark.parametrize("option", [["--tta"], ["--output", "x"]])
def test_what_detectors_do_not_do(cli, trained_run, option):
    name = option[0].removeprefix("--").replace("-", "_")
    text = error(cli, "val", trained_run.last, *option)
    assert f"{name}: expected a classifier, got a detector" in text


# Classifiers.


def test_a_classifiers_metrics_are_the_trainings(cli, classifier_run, colors):
    for weights in (classifier_run.best, classifier_run.last):
        found = val(cli, weights)
        assert found.pop("images") == 35
        assert found.pop("skipped") == 0
        assert found == read_description(weights).metrics
        assert found["top5"] >= found["top1"]
    assert val(cli, classifier_run.best, "--data", colors, "--split", "train")["images"] == 56


def test_the_table_and_the_figures(cli, classifier_run, tmp_path):
    status, out, _ = cli("val", classifier_run.best, "--output", tmp_path / "new" / "figures")
    assert status == 0
    for word in ("top1", "top5", "calibration_error", "accuracy of yellow"):
        assert word in out
    names = {path.name for path in (tmp_path / "new" / "figures").iterdir()}
    assert names == {"confusion_matrix.png", "calibration.png", "per_class.png"}
    for name in names:
        assert read_image(tmp_path / "new" / "figures" / name).width > 300


def test_flips(cli, classifier_run, colors):
    files = sorted((colors / "val").rglob("*.png"))
    predictor = botvision.load(classifier_run.best)
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


def test_a_classifier_at_another_size(classifier_run):
    found = evaluate(classifier_run.best, image_size=48)
    assert found["images"] == 35
    assert found["loss"] != read_description(classifier_run.best).metrics["loss"]


@pytest.fixture
def folder(colors, tmp_path):
    shutil.copytree(colors / "val", tmp_path / "data" / "val")
    return tmp_path / "data"


def test_classes_that_the_weights_do_not_know(cli, classifier_run, folder):
    shutil.copytree(folder / "val" / "red", folder / "val" / "pink")
    text = error(cli, "val", classifier_run.best, "--data", folder)
    assert "class 'pink': expected the 7 classes of the weights, got 8 with 1 others" in text


def test_fewer_classes_than_the_weights_know(cli, classifier_run, folder):
    shutil.rmtree(folder / "val" / "red")
    found = val(cli, classifier_run.best, "--data", folder)
    assert found["images"] == 30
    assert found["per_class"]["red"] is None
    whole = read_description(classifier_run.best).metrics["per_class"]
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


# Both.


@pytest.mark.parametrize("kind", ["trained_run", "classifier_run"])
def test_what_only_informs_is_needed_for_nothing_but_its_own(kind, request, tmp_path):
    """Without the recipe the metrics are the same, once the data is named."""
    run = request.getfixturevalue(kind)
    data = request.getfixturevalue({"trained_run": "handwriting", "classifier_run": "colors"}[kind])
    description = read_description(run.best)
    path = tmp_path / "a.safetensors"
    bare = description.model_copy(update={"recipe": {}, "metrics": {}, "made_by": {}})
    write_tensors(path, read_tensors(run.best), bare)
    with pytest.raises(BotvisionError, match="data: expected a data folder"):
        evaluate(path)
    training = description.recipe["training"]
    found = evaluate(path, data, batch_size=training["batch_size"])
    metrics = {name: found[name] for name in description.metrics}
    assert metrics == description.metrics


def test_a_loaded_predictor_is_evaluated_alike(classifier_run, colors):
    predictor = botvision.load(classifier_run.best)
    calls = []
    found = evaluate(predictor, str(colors), progress=lambda *call: calls.append(call))
    assert found == evaluate(classifier_run.best)
    assert calls[-1] == (35, 35)


def test_data_that_is_missing(trained_run, classifier_run, tmp_path):
    for run in (trained_run, classifier_run):
        with pytest.raises(BotvisionError, match="none") as raised:
            evaluate(run.best, tmp_path / "none")
        assert "\n" not in str(raised.value)
