"""``botvision predict`` with a classifier: bars, predictions.json and a sheet of images."""

import json
import shutil

import pytest

import botvision
from botvision.images.decode import read_image


@pytest.fixture
def photos(colors, tmp_path):
    folder = tmp_path / "photos"
    for path in sorted((colors / "val").rglob("*0.png")):
        (folder / path.parent.name[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name[0] / path.name)
    return folder


def test_what_is_written(cli, classifier_run, photos, tmp_path, tree):
    before = tree(photos)
    status, out, err = cli(
        "predict", photos, "--weights", classifier_run.best, "--output", tmp_path / "out", "--json"
    )
    assert status == 0, err
    content = json.loads(out)
    assert content == json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert tree(photos) == before
    predictor = botvision.load(classifier_run.best)
    assert content["classes"] == list(predictor.classes)
    assert content["skipped"] == []
    assert [each["file_name"] for each in content["images"]] == [
        path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))
    ]
    for each in content["images"]:
        found = predictor(photos / each["file_name"])
        assert len(each["predicted"]) == 5
        assert each["predicted"][0]["class"] == predictor.classes[found.class_id[0]]
        for one, confidence in zip(each["predicted"], found.confidence, strict=False):
            assert one["probability"] == pytest.approx(float(confidence), abs=0.02)
    sheet = read_image(tmp_path / "out" / "predictions.jpg")
    assert sheet.width > 3 * 180


def test_bars_are_as_long_as_the_probabilities(cli, classifier_run, photos, tmp_path):
    path = next(photos.rglob("*.png"))
    status, out, _ = cli(
        "predict", path, "--weights", classifier_run.best, "--output", tmp_path / "out"
    )
    assert status == 0
    (image,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    lines = [line for line in out.splitlines() if "█" in line]
    assert len(lines) == 5
    for line, each in zip(lines, image["predicted"], strict=True):
        assert line.split()[:2] == [each["class"], f"{each['probability']:.3f}"]
        assert line.count("█") == max(1, round(24 * each["probability"]))


def test_flips_change_the_figures(cli, classifier_run, photos, tmp_path):
    found = []
    for option in ([], ["--tta"]):
        _, out, _ = cli(
            "predict",
            photos,
            "--weights",
            classifier_run.best,
            "--output",
            tmp_path,
            "--json",
            *option,
        )
        found.append(json.loads(out)["images"])
    assert found[0] != found[1]


def test_an_unreadable_image(cli, classifier_run, photos, tmp_path):
    (photos / "bad.jpg").write_text("no image")
    arguments = ("predict", photos, "--weights", classifier_run.best, "--output", tmp_path / "out")
    status, _, err = cli(*arguments)
    assert status == 2
    assert "bad.jpg: expected an image" in err
    assert not (tmp_path / "out").exists()
    status, out, _ = cli(*arguments, "--skip-bad")
    assert status == 0
    assert "1 images could not be read" in out
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    (skipped,) = content["skipped"]
    assert skipped["file_name"] == "bad.jpg"
    assert len(content["images"]) == 7
    status, _, err = cli(
        "predict", photos / "bad.jpg", "--weights", classifier_run.best, "--skip-bad"
    )
    assert status == 2
    assert "none of the images can be read" in err


def test_a_detector_skips_too_and_takes_no_flips(cli, trained_run, val_image, tmp_path):
    (tmp_path / "photos").mkdir()
    shutil.copy(val_image, tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.png").write_text("no image")
    arguments = (
        "predict",
        tmp_path / "photos",
        "--weights",
        trained_run.last,
        "--output",
        tmp_path / "out",
    )
    status, _, err = cli(*arguments)
    assert status == 2
    assert not (tmp_path / "out").exists()
    status, out, _ = cli(*arguments, "--skip-bad", "--json")
    assert status == 0
    content = json.loads(out)
    assert [image["file_name"] for image in content["images"]] == ["a.png"]
    assert [each["file_name"] for each in content["skipped"]] == ["b.png"]
    status, _, err = cli(*arguments, "--tta")
    assert status == 2
    assert "--tta: expected a classifier's weights, got a detector's" in err
