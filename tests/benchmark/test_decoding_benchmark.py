"""The benchmark of decoding: its figures on a few small images."""

import json

import numpy as np
import pytest
from PIL import Image


def test_a_report(cli, tmp_path):
    smooth = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
    for name in ("a.jpg", "b.JPEG", "c.png"):
        Image.fromarray(smooth).save(tmp_path / name)
    arguments = ("benchmark", "decoding", "--data", tmp_path, "--rounds", 2)
    status, out, error = cli(*arguments, "--output", tmp_path / "out", "--json")
    assert (status, error) == (0, "")
    report = json.loads(out)
    assert report == json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert report["images"] == 2
    assert report["megapixels"] == pytest.approx(64 * 48 / 1e6)
    ours, pillow, draft, torchvision = report["decoders"]
    assert (ours["name"], ours["ratio"], ours["most_difference"]) == ("botvision", 1, 0)
    assert pillow["most_difference"] == 0
    assert draft["most_difference"] is None  # half the size
    assert torchvision["most_difference"] <= 4
    assert all(way["seconds"] > 0 for way in report["decoders"])
    status, out, _ = cli(*arguments, "--output", tmp_path / "out")
    assert status == 0
    assert "other size" in out


def test_no_jpegs(cli, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    status, _, error = cli("benchmark", "decoding", "--data", tmp_path)
    assert status == 2
    assert error == f"error: {tmp_path}: holds no JPEG images\n"
