"""Lack of memory is one line and status 2; no image is blamed for it, and no file is half there."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

import botvision
from botvision.datasets.folders.dataset import ClassImages
from botvision.datasets.loading import load_batches
from botvision.errors import BotvisionError, OutOfMemoryError
from botvision.images.inputs import to_rgb
from botvision.processes import one_line_out_of_memory, out_of_memory

ERRORS = {
    "Python": MemoryError(),
    "numpy": np._core._exceptions._ArrayMemoryError((10**11,), np.dtype(float)),
    "torch": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"),
    "system": OSError(12, "Cannot allocate memory"),
    "Pillow": OSError("out of memory error when reading image file"),
    "safetensors": Exception("I/O error: Cannot allocate memory (os error 12)"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_that_say_so(kind):
    assert out_of_memory(ERRORS[kind])
    with pytest.raises(OutOfMemoryError) as raised, one_line_out_of_memory("x: doing", "free some"):
        raise ERRORS[kind]
    amount = {"numpy": "745. GiB", "torch": "400000000000 bytes", "CUDA": "2.00 GiB"}.get(kind)
    tried = f" (tried to allocate {amount})" if amount else ""
    assert str(raised.value) == f"x: doing: out of memory{tried}; free some"
    assert isinstance(raised.value, BotvisionError)
    with pytest.raises(ZeroDivisionError), one_line_out_of_memory("x", "y"):
        raise ZeroDivisionError


def failing(*_, **__):
    raise ERRORS["torch"]


PLACES = {
    "botvision.tasks.detection.predictor.build_detector": "best.safetensors: loading the weights",
    "botvision.tasks.detection.predictor.read_tensors": "best.safetensors: loading the weights",
    "botvision.images.decode.rgb_of": "val_000000.jpg: decoding the image",
    "botvision.tasks.detection.evaluation._floats": "predicting an image of up to 64 x 64",
    "botvision.tasks.detection.evaluation.compact_masks": "predicting an image of up to 64 x 64",
    "botvision.tasks.detection.writer.draw_instances": "val_000000.jpg: drawing the result",
    "botvision.tasks.detection.writer.DetectionWriter.finish": "writing the results",
    "botvision.predict.sources.find_images": "out of memory; free some",
}


@pytest.mark.parametrize("skip_bad", [[], ["--skip-bad"]])
@pytest.mark.parametrize("place", PLACES)
def test_predict(place, skip_bad, cli, trained_run, val_image, tmp_path, monkeypatch, tree):
    arguments = ("predict", val_image, "--weights", trained_run.best, "--output", tmp_path / "out")
    assert cli(*arguments)[0] == 0
    before = tree(tmp_path)
    monkeypatch.setattr(place, failing)
    status, _, error = cli(*arguments, "--threshold", 0, *skip_bad)
    assert status == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert PLACES[place] in error
    assert "out of memory" in error
    after = tree(tmp_path)
    if not place.endswith("finish"):
        assert after == before
    assert after["out/predictions.json"] == before["out/predictions.json"]
    assert after.keys() - {"out/predictions.partial.jsonl"} == before.keys()


@pytest.mark.parametrize(
    "place",
    [
        "botvision.tasks.detection.evaluation.detect",
        "botvision.tasks.detection.evaluation.CocoMetrics.evaluate",
        "botvision.images.decode.rgb_of",
    ],
)
def test_val(place, cli, trained_run, monkeypatch):
    monkeypatch.setattr(place, failing)
    status, _, error = cli("val", trained_run.best, "--skip-bad")
    assert status == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "out of memory (tried to allocate 400000000000 bytes)" in error


def test_a_command_that_expects_none(cli, monkeypatch):
    monkeypatch.setattr("botvision.cli.models.open_console", failing)
    assert cli("models") == (
        2,
        "",
        "error: out of memory; free some, or lower what is done at a time\n",
    )


def test_an_image_is_not_blamed(predictor, colors, val_image, monkeypatch):
    monkeypatch.setattr(ImageOps, "exif_transpose", failing)
    with Image.open(val_image) as opened, pytest.raises(OutOfMemoryError, match="image: decoding"):
        to_rgb(opened)
    with pytest.raises(OutOfMemoryError, match=r"val_000000\.jpg: decoding the image"):
        predictor(val_image)
    with pytest.raises(OutOfMemoryError, match=r"\.png: decoding the image"):
        ClassImages(str(colors), "train", skip_bad=True)


class Hungry(Dataset):
    def __init__(self, kind):
        self.kind = kind

    def __getitem__(self, key):
        if self.kind == "numpy":
            return np.empty(10**16)
        raise ERRORS[self.kind]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("kind", ["Python", "numpy", "torch"])
def test_data_workers(kind, num_workers):
    batches = load_batches(Hungry(kind), [[0]], collate=list, num_workers=num_workers)
    with pytest.raises(OutOfMemoryError, match="reading a batch: out of memory") as raised:
        next(batches)
    assert "\n" not in str(raised.value)


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
import botvision
from botvision.errors import OutOfMemoryError
from botvision.predict.files import predict_files
room, weights, image, output = sys.argv[1:]
predictor = botvision.load(weights, "cpu")
predictor(np.zeros((64, 64, 3), np.uint8))  # loads what a first prediction loads
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(room)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    predict_files(predictor, [Path(image)], Path(output), skip_bad=True)
except OutOfMemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("room", "expected"), [(60, "a.png: decoding the image"), (300, "predicting an image of up to")]
)
def test_a_real_limit(room, expected, trained_run, tmp_path):
    Image.new("RGB", (6000, 4000)).save(tmp_path / "a.png")
    # A new process: a copy of this one may decode into what earlier tests have freed.
    arguments = [str(room * 2**20), trained_run.best, tmp_path / "a.png", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert expected in line
    assert "out of memory" in line
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_the_error_is_one_of_memory():
    assert issubclass(OutOfMemoryError, MemoryError)
    assert issubclass(OutOfMemoryError, botvision.errors.BotvisionError)
