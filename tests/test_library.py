"""The public names do what the command does, take paths as text, and need no callback."""

import json
import subprocess
import sys

import pytest

import botvision

PUBLIC = {
    *("BotvisionError", "botify", "check", "convert", "create_model", "evaluate", "list_models"),
    *("load", "train"),
}


def test_the_public_names_and_no_others():
    assert {name for name in dir(botvision) if not name.startswith("__")} == PUBLIC
    assert set(botvision.__all__) == PUBLIC
    for name in PUBLIC:
        assert callable(getattr(botvision, name))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        botvision.lod  # noqa: B018


def test_nothing_heavy_is_imported_for_its_name():
    code = "import botvision, sys; dir(botvision); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_way_through(handwriting, tiny, tmp_path):
    report = botvision.check(str(handwriting))
    assert report.trainable
    changes = [*tiny, "training.epochs=1"]
    run = botvision.train("demo", str(handwriting), runs=str(tmp_path), overrides=changes, seed=3)
    assert run.folder == tmp_path / "instance_segmentation" / "demo"
    assert run.recipe["training"]["seed"] == 3
    again = botvision.train("demo", handwriting, runs=tmp_path, overrides=changes, seed=3)
    assert again.folder.name == "demo-2"
    assert again.metrics == run.metrics

    found = botvision.evaluate(str(run.best), str(handwriting))
    assert found["box_ap"] == pytest.approx(run.metrics["box_ap"], abs=1e-6)
    model = botvision.load(str(run.best))
    assert model.classes == tuple("0123456789")
    assert model.input_size == 64
    images = sorted((handwriting / "images").glob("val*"))
    assert [path for path, _ in model.stream(str(handwriting / "images" / "val*"))] == images


def test_conversion_takes_text(tmp_path):
    from PIL import Image

    folder = tmp_path / "yolo"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for name in "ab":
        Image.new("RGB", (40, 30)).save(folder / "images" / f"{name}.png")
        (folder / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("train: images\nnames: [cat]\n")
    botvision.convert(str(folder), str(tmp_path / "coco"), val_fraction=0.5)
    written = json.loads((tmp_path / "coco" / "annotations" / "instances_val.json").read_text())
    assert len(written["images"]) == 1
    assert botvision.check(tmp_path / "coco").trainable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dmo",), "recipe 'dmo' is unknown; did you mean demo"),
        (("demo",), "data.folder: expected a COCO folder, got none"),
        (("demo", "nowhere"), "nowhere: no such data folder"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path):
    with pytest.raises(botvision.BotvisionError, match=message) as raised:
        botvision.train(*arguments, runs=tmp_path)
    assert "\n" not in str(raised.value)
    assert "--" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_is_named(handwriting, tmp_path):
    with pytest.raises(ValueError, match=r"training\.epoch: no such key; did you mean epochs"):
        botvision.train("demo", handwriting, runs=tmp_path, epoch=3)
