"""The benchmark of predictions runs on real files; its figures are those of the machine."""

import json

import pytest
from PIL import Image

from botvision.errors import BotvisionError
from botvision.images.find import find_images
from botvision.predict.speed import benchmark_prediction


def test_parts_take_turns(predictor, handwriting):
    said = []
    paths = find_images(handwriting / "images").paths
    speed = benchmark_prediction(predictor, paths, batch_size=4, rounds=2, progress=said.append)
    assert (speed.images, speed.batch_size, speed.rounds) == (14, 4, 2)
    assert min(speed.model, speed.results, speed.overlays) > 0
    assert said[:3] == [f"{part}, round 0 of 2" for part in ("model", "results", "overlays")]
    assert len(said) == 9


def test_images_of_several_sizes(predictor, handwriting, tmp_path):
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    paths = [tmp_path / "a.png", *find_images(handwriting / "images").paths]
    with pytest.raises(BotvisionError, match=r"expected images of one size.*got 2 sizes"):
        benchmark_prediction(predictor, paths)


def test_command(cli, trained_run, classifier_run, val_image):
    arguments = ("benchmark", "predict", val_image, "--rounds", 1, "--weights")
    status, out, err = cli(*arguments, trained_run.best, "--json")
    assert status == 0, err
    assert json.loads(out)["images"] == 1
    status, out, err = cli(*arguments, trained_run.best)
    assert status == 0, err
    assert "files to results and overlays" in out + err
    status, _, err = cli(*arguments, classifier_run.best)
    assert status == 2
    assert "expected a detector" in err
