"""Weights files of every format are read for good, and predict what they predicted."""

import json
from pathlib import Path

import numpy as np
import pytest

import botvision
from botvision.weights.file import FORMAT, read_description

FILES = Path(__file__).parent / "files"
WEIGHTS = sorted(FILES.glob("format_*/*.safetensors"))
OUTPUTS = json.loads((FILES / "outputs.json").read_text())


def test_every_format_is_here():
    assert {path.parent.name for path in WEIGHTS} == {f"format_{n}" for n in range(FORMAT + 1)}
    assert sum(path.stat().st_size for path in FILES.rglob("*") if path.is_file()) < 300_000


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_outputs_stay(path):
    predictor = botvision.load(path, device="cpu")
    found = predictor(FILES / "image.png", threshold=0.0)
    expected = OUTPUTS[path.stem]
    assert found.class_id.tolist() == expected["class_id"]
    assert np.allclose(found.confidence, expected["confidence"], rtol=1e-3, atol=1e-5)
    if "xyxy" in expected:
        assert np.allclose(found.xyxy, expected["xyxy"], atol=1e-2)
        pixels = expected["mask_pixels"]
        assert (found.mask is None) == (pixels is None)
        # A pixel on the edge of a mask may fall on either side of it on another processor.
        assert pixels is None or np.allclose(found.mask.area, pixels, atol=2)


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_descriptions_are_of_the_newest_format(path):
    description = read_description(path)
    assert description.format == FORMAT
    assert description.task == ("classification" if path.stem == "classifier" else "detection")
    assert description.metrics
    assert description.made_by["step"] == 3
    expected = ["ant", "bee", "cat"] if path.stem == "classifier" else ["one", "two"]
    assert list(description.class_names) == expected
