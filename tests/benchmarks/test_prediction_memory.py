"""The measurement of a prediction's memory."""

import pytest
from PIL import Image


@pytest.mark.parametrize(
    "way", ["predict_files", "a list of paths to botvision.load(...)", "stream"]
)
def test_each_way_predicts(way, module, trained_run, tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(2)]
    for path in paths:
        Image.new("RGB", (2000, 1500)).save(path)
    grown = module("prediction_memory").measure(str(trained_run.best), way, paths, tmp_path / "out")
    assert 0 <= grown < 2**30
    assert (tmp_path / "out" / "predictions.json").exists() == (way == "predict_files")
