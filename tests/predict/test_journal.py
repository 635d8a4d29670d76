"""A prediction that is interrupted goes on where it was, each image exactly once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from botvision.errors import BotvisionError
from botvision.images.find import find_images
from botvision.predict.files import predict_files
from botvision.predict.journal import PARTIAL_NAME, Journal


@pytest.fixture
def folder(handwriting):
    return handwriting / "images"


def paths_of(folder):
    return find_images(folder).paths


class StoppedError(Exception):
    pass


def stop_after(count):
    def progress(done, total):
        if done == count:
            raise StoppedError

    return progress


def interrupted(predictor, folder, output, after=5, **options):
    with pytest.raises(StoppedError):
        predict_files(predictor, paths_of(folder), output, progress=stop_after(after), **options)


@pytest.mark.parametrize("after", [1, 5, 14])
def test_it_goes_on(after, predictor, folder, tmp_path, monkeypatch):
    options = {"threshold": 0.0, "save": ["jpg", "csv"], "batch_size": 4}
    expected = predict_files(predictor, paths_of(folder), tmp_path / "whole", **options)
    interrupted(predictor, folder, tmp_path / "parts", after, **options)
    assert not (tmp_path / "parts" / "predictions.json").exists()
    predicted = []
    predict = type(predictor).predict

    def counted(self, images, **given):
        predicted.extend(images)
        return predict(self, images, **given)

    monkeypatch.setattr(type(predictor), "predict", counted)
    report = predict_files(predictor, paths_of(folder), tmp_path / "parts", **options)
    assert report.continued == after
    assert report.images == expected.images == 14
    assert len(predicted) == 14 - after
    one, two = (
        json.loads((tmp_path / run / "predictions.json").read_text()) for run in ("whole", "parts")
    )
    assert one["images"] == two["images"]
    assert len(one["annotations"]) == len(two["annotations"])
    assert not (tmp_path / "parts" / PARTIAL_NAME).exists()
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names


def test_other_options_or_images_are_no_continuation(predictor, folder, tmp_path):
    output = tmp_path / "out"
    interrupted(predictor, folder, output, threshold=0.0)
    with pytest.raises(BotvisionError, match=r"interrupted prediction of other images, weights"):
        predict_files(predictor, paths_of(folder), output, threshold=0.1)
    with pytest.raises(BotvisionError, match=r"interrupted prediction of other images, weights"):
        predict_files(predictor, paths_of(folder)[1:], output, threshold=0.0)
    (output / PARTIAL_NAME).unlink()
    assert predict_files(predictor, paths_of(folder)[1:], output).images == 13


def test_a_finished_one_is_done_again(predictor, folder, tmp_path):
    for _ in range(2):
        report = predict_files(predictor, paths_of(folder)[:3], tmp_path / "out")
        assert (report.images, report.continued) == (3, 0)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_damaged_image_among_many(skip_bad, predictor, folder, tmp_path):
    copies = tmp_path / "photos"
    copies.mkdir()
    for path in paths_of(folder):
        (copies / path.name).write_bytes(path.read_bytes())
    bad = sorted(copies.iterdir())[9]
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    output = tmp_path / "out"
    if skip_bad:
        report = predict_files(predictor, paths_of(copies), output, skip_bad=True)
        assert report.images == 13
        (skipped,) = report.skipped
        assert skipped["file_name"] == bad.name
        assert "cannot be decoded" in skipped["reason"]
        assert report.content()["skipped"] == report.skipped
        return
    with pytest.raises(
        BotvisionError, match=r"cannot be decoded.*the 9 images before it are in .*same command"
    ):
        predict_files(predictor, paths_of(copies), output, batch_size=2)
    bad.write_bytes(whole)
    report = predict_files(predictor, paths_of(copies), output, batch_size=2)
    assert (report.images, report.continued) == (14, 9)


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_that_a_crash_cut_short_is_done_again(cut, tmp_path):
    journal = Journal(tmp_path, {"made_by": "botvision"})
    for number in range(3):
        journal.add({"file_name": f"{number}.jpg", "value": "x" * 30})
    path = tmp_path / PARTIAL_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(tmp_path, {"made_by": "botvision"})
    assert again.done == {"0.jpg", "1.jpg"}
    again.add({"file_name": "2.jpg", "value": "y"})
    assert [each["file_name"] for each in again.records()] == ["0.jpg", "1.jpg", "2.jpg"]
    again.finish()
    assert [each["file_name"] for each in again.records()] == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_header_that_a_crash_cut_short(tmp_path):
    (tmp_path / PARTIAL_NAME).write_text('{"made_')
    with pytest.raises(BotvisionError, match="interrupted prediction of other"):
        Journal(tmp_path, {"made_by": "botvision"})


def test_killed(trained_run, folder, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    contents = [path.read_bytes() for path in paths_of(folder)]
    for number in range(300):
        (many / f"{number:03d}.jpg").write_bytes(contents[number % len(contents)])
    command = [sys.executable, "-c", "from botvision.cli import main; main()", "predict", many]
    command += ["--weights", trained_run.best, "--output", tmp_path / "out", "--threshold", "0"]
    job = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    partial, deadline = tmp_path / "out" / PARTIAL_NAME, time.monotonic() + 120
    while time.monotonic() < deadline and not (
        partial.exists() and partial.read_bytes().count(b"\n") > 20
    ):
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    done = partial.read_bytes().count(b"\n") - 1
    assert 20 <= done < 300
    again = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    assert "images were done before, by an interrupted call" in again.stderr + again.stdout
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [each["file_name"] for each in content["images"]] == [f"{n:03d}.jpg" for n in range(300)]
    assert len(list((tmp_path / "out").glob("*_jpg.jpg"))) == 300
