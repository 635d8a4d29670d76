"""The benchmark of decoding: its figures on a few small images."""

import json

import numpy as np
import pytest
from PIL import Image


def test_a_report(script, tmp_path):
    smooth = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
    for name in ("a.jpg", "b.JPEG", "c.png"):
        Image.fromarray(smooth).save(tmp_path / name)
    status, out, error = script("decoding", "--data", tmp_path, "--rounds", 2, "--json")
    assert (status, error) == (0, "")
    report = json.loads(out)
    assert report["images"] == 2
    assert report["megapixels"] == pytest.approx(64 * 48 / 1e6)
    ours, pillow, draft, torchvision = report["decoders"]
    assert (ours["name"], ours["ratio"], ours["largest_difference"]) == ("botvision", 1, 0)
    assert pillow["largest_difference"] == 0
    assert draft["largest_difference"] is None  # half the size
    assert torchvision["largest_difference"] <= 4
    assert all(way["seconds"] > 0 for way in report["decoders"])


def test_no_jpegs(module, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="holds no JPEG images"):
        module("decoding").benchmark(tmp_path, rounds=1)
