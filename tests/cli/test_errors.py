"""A user's mistakes at the command line: exit status 2, one line, nothing left behind."""

import json
import re
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import botvision
from botvision.weights.file import save_weights


@pytest.fixture
def refused(cli, tmp_path, tree, monkeypatch):
    """Runs a command that must fail: its one line, after a look that nothing was touched."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        before = tree(tmp_path)
        status, out, error = cli(*arguments)
        assert status == 2, (out, error)
        assert error.startswith("error: "), error
        assert error.count("\n") == 1, error
        assert "Traceback" not in error
        assert tree(tmp_path) == before
        return error

    return run


@pytest.fixture
def recipe(make_recipe, tmp_path):
    """The tiny recipe as a file; ``data=`` names the folder."""
    import yaml

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(make_recipe().model_dump(mode="json")))
    return path


@pytest.fixture
def data(handwriting, tmp_path):
    path = tmp_path / "data of mine"
    shutil.copytree(handwriting, path)
    return path


def edited(folder, split, change):
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "demo", "--data", "nowhere"],
        ["val", "{weights}", "--data", "nowhere"],
        ["predict", "nowhere", "--weights", "{weights}"],
        ["attention-map", "nowhere", "--at", "1,1", "--weights", "{weights}"],
        ["train", "--resume", "nowhere"],
        ["val", "nowhere"],
        ["predict", "{image}", "--weights", "nowhere"],
        ["attention-map", "{image}", "--at", "1,1", "--weights", "nowhere"],
        ["train", "nowhere.yaml"],
        ["train", "demo", "--data", "{data}", "--set", "model.backbone_weights=nowhere.pth"],
    ],
    ids=" ".join,
)
def test_missing(arguments, refused, trained_run, val_image, handwriting):
    known = {"weights": trained_run.best, "image": val_image, "data": handwriting}
    assert re.search(r"nowhere(\.\w+)?: ", refused(*[a.format(**known) for a in arguments]))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epoch=1", "training.epoch: no such key; did you mean epochs"),
        ("trainin.epochs=1", "trainin: no such key; did you mean training"),
        ("model.backbon=botnet50", "model.backbon: no such key; did you mean backbone"),
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1, got 0"),
        ("training.epochs=many", "got 'many'"),
        ("model.backbone=botnet5", "'botnet5' is unknown; did you mean botnet50"),
        ("model.backbone_arguments={positon: none}", "positon"),
        ("training.seed=-1", "training.seed"),
        ("training.epochs", "expected key.key=value"),
        ("a='!!python/object/apply:os.system [touch x]'", "a: no such key"),
        ("a=!!python/object/apply:os.system [touch x]", "the value is not YAML"),
    ],
)
def test_wrong_key_or_value(override, expected, refused, recipe, handwriting):
    assert expected in refused("train", recipe, "--data", handwriting, "--set", override)


@pytest.mark.parametrize(
    "arguments",
    [["train"], ["train", "demo"], ["train", "demo", "--resume", "."]],
    ids=["no recipe", "no data", "recipe and resume"],
)
def test_wrong_combination(arguments, refused):
    refused(*arguments)


def test_unknown_recipe(refused, handwriting):
    assert "did you mean demo?" in refused("train", "dem", "--data", handwriting)


def test_no_other_recipe_on_resume(refused, trained_run):
    message = refused("train", "--resume", trained_run.path, "--set", "training.epochs=3")
    assert "training.epochs 2 -> 3" in message


@pytest.mark.parametrize("content", [b"this is no image", b"", b"\xff\xd8\xff\xe0 cut short"])
@pytest.mark.parametrize("command", ["predict", "attention-map"])
def test_image_that_is_none(command, content, refused, trained_run, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(content)
    more = ["--at", "1,1"] if command == "attention-map" else []
    assert "photo.jpg" in refused(command, "photo.jpg", "--weights", trained_run.best, *more)


def test_folder_with_one_image_that_is_none(refused, trained_run, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.png").write_text("this is no image")
    message = refused("predict", "photos", "--weights", trained_run.best, "--output", "out")
    assert "b.png" in message


def test_folder_without_images(refused, trained_run, tmp_path):
    (tmp_path / "photos").mkdir()
    assert "photos" in refused("predict", "photos", "--weights", trained_run.best)


def make_weights(kind, path, trained_run):
    model = botvision.create_model("botnet_tiny", num_classes=2)
    if kind == "text":
        path.write_text("these are no weights")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(trained_run.best.read_bytes()[:50_000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pickle":
        torch.save(model.state_dict(), path)
    elif kind == "no description":
        save_file(model.state_dict(), path)
    elif kind == "classifier":
        description = {"format": 1, "task": "classification", "model": {"name": "botnet_tiny"}}
        save_file(model.state_dict(), path, metadata={"botvision": json.dumps(description)})
    elif kind == "other tensors":
        from botvision.weights.file import read_description

        save_weights(path, model, read_description(trained_run.best))
    elif kind == "later version":
        from botvision.weights.file import read_description, read_tensors

        description = {**read_description(trained_run.best).model_dump(mode="json"), "format": 2}
        tensors = read_tensors(trained_run.best)
        save_file(tensors, path, metadata={"botvision": json.dumps(description)})
    elif kind == "garbled description":
        save_file(model.state_dict(), path, metadata={"botvision": "{"})


@pytest.mark.parametrize(
    "kind",
    [
        "text",
        "empty",
        "truncated",
        "folder",
        "pickle",
        "no description",
        "classifier",
        "other tensors",
        "later version",
        "garbled description",
    ],
)
def test_weights_that_are_no_detectors(kind, refused, trained_run, val_image, tmp_path):
    make_weights(kind, tmp_path / "weights.safetensors", trained_run)
    message = refused("predict", val_image, "--weights", "weights.safetensors")
    assert "weights.safetensors: " in message


def test_backbone_of_another_model(refused, recipe, handwriting, tmp_path):
    save_weights(tmp_path / "r.safetensors", botvision.create_model("resnet18"))
    assert "another model" in refused(
        "train", recipe, "--data", handwriting, "--set", "model.backbone_weights=r.safetensors"
    )


def test_run_folder_that_exists(refused, recipe, tmp_path):
    (tmp_path / "runs" / "instance_segmentation" / "taken").mkdir(parents=True)
    message = refused("train", recipe, "--name", "taken")
    assert "taken: the run folder exists" in message
    assert "resume the run" in message


def test_runs_folder_that_is_a_file(refused, recipe, tmp_path):
    (tmp_path / "runs").write_text("a file")
    assert "runs" in refused("train", recipe)


def test_classes_that_differ(refused, trained_run, data):
    def rename(content):
        content["categories"][0]["name"] = "zebra"

    edited(data, "val", rename)
    message = refused("val", trained_run.best, "--data", data)
    assert "categories: expected" in message
    assert "zebra" in message


def test_unknown_split(refused, trained_run, handwriting):
    message = refused("val", trained_run.best, "--data", handwriting, "--split", "test")
    assert "instances_test.json" in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_that_are_not_json(split, refused, recipe, data):
    (data / "annotations" / f"instances_{split}.json").write_text('{"images": [')
    message = refused("train", recipe, "--data", data)
    assert "not JSON at offset" in message


def test_images_that_are_missing(refused, recipe, data):
    (data / "images" / "train_000003.jpg").unlink()
    assert "train_000003.jpg" in refused("train", recipe, "--data", data)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_image_that_is_none(num_workers, cli, recipe, data, tmp_path):
    # What only reading shows comes when the run has begun, but it is still one line.
    for path in (data / "images").glob("train_*"):
        path.write_text("this is no image")
    status, _, error = cli(
        *("train", recipe, "--data", data, "--runs", tmp_path / "runs"),
        *("--set", f"training.num_workers={num_workers}"),
    )
    assert status == 2
    assert error.splitlines()[-1].startswith("error: ")
    assert "expected an image" in error.splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.parametrize("at", ["64,0", "0,64", "5", "1,2,3", "-1,5", "x,y", "1.5,2"])
def test_position_that_is_none(at, refused, trained_run, val_image):
    message = refused("attention-map", val_image, f"--at={at}", "--weights", trained_run.best)
    assert f"pixel {at}: expected" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "expected one of --at and --instance, got neither"),
        (["--at", "1,1", "--instance", 0], "expected one of --at and --instance, got both"),
        (["--at", "1,1", "--threshold", 0.1], "--threshold: expected with --instance alone"),
        (["--instance", 10, "--threshold", 0], "expected 0 to 9, as there are 10 detections"),
        (["--instance", 0], "got no detections at threshold 0.5; lower it"),
    ],
    ids=str,
)
def test_query_of_attention_map_that_is_none(options, expected, refused, trained_run, val_image):
    message = refused("attention-map", val_image, "--weights", trained_run.best, *options)
    assert expected in message


def test_attention_map_of_an_instance_by_a_classifier(refused, classifier_run, val_image):
    message = refused("attention-map", val_image, "--weights", classifier_run.best, "--instance", 0)
    assert "instance 0: expected a detector, got a model for classification" in message


@pytest.mark.parametrize("output", ["nowhere/attention.png", "attention.txt"])
def test_attention_map_that_cannot_be_written(output, refused, trained_run, val_image):
    arguments = ["attention-map", val_image, "--at", "1,1", "--weights", trained_run.best]
    assert output in refused(*arguments, "--output", output)


def test_attention_map_onto_its_image(refused, trained_run, val_image, tmp_path):
    shutil.copy(val_image, tmp_path / "attention.png")  # the name of the default output
    refused("attention-map", "attention.png", "--at", "1,1", "--weights", trained_run.best)


def test_predictions_onto_the_images(refused, trained_run, handwriting, tmp_path):
    shutil.copytree(handwriting / "images", tmp_path / "photos")
    message = refused("predict", "photos", "--weights", trained_run.best, "--output", "photos")
    assert "output photos: expected another folder" in message


def test_output_that_is_a_file(refused, trained_run, val_image, tmp_path):
    (tmp_path / "out").write_text("a file")
    assert "out" in refused("predict", val_image, "--weights", trained_run.best, "--output", "out")


def test_handwriting_folder_that_exists(refused, tmp_path):
    (tmp_path / "digits").mkdir()
    assert "digits: already exists" in refused("data", "handwriting", "digits")
