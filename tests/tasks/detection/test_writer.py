"""What a prediction of a detector can save, read back by other libraries."""

import csv
import json

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.predict.files import predict_files
from botvision.supervision_import import import_supervision


@pytest.fixture(scope="module")
def paths(handwriting):
    return [handwriting / "images" / f"val_00000{number}.jpg" for number in range(3)]


@pytest.fixture(scope="module")
def output(predictor, paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "out"
    save = ["png", "crops", "masks", "csv", "coco"]
    predict_files(predictor, paths, folder, threshold=0.0, save=save)
    return folder


@pytest.fixture(scope="module")
def content(output):
    return json.loads((output / "predictions.json").read_text())


def of_image(content, number):
    return [each for each in content["annotations"] if each["image_id"] == number]


def test_the_table(output, content):
    with (output / "predictions.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    names = {each["id"]: each["name"] for each in content["categories"]}
    files = {each["id"]: each["file_name"] for each in content["images"]}
    assert len(rows) == len(content["annotations"]) == 30
    for row, each in zip(rows, content["annotations"], strict=True):
        assert row["file_name"] == files[each["image_id"]]
        assert row["class"] == names[each["category_id"]]
        assert float(row["score"]) == pytest.approx(each["score"], abs=1e-4)
        box = [float(row[key]) for key in ("x", "y", "width", "height")]
        assert box == pytest.approx(each["bbox"], abs=0.01)


def test_supervision_reads_the_annotations(output, content, paths):
    loaded = import_supervision().DetectionDataset.from_coco(
        images_directory_path=str(paths[0].parent),
        annotations_path=str(output / "annotations.json"),
        force_masks=True,
    )
    assert loaded.classes == [each["name"] for each in content["categories"]]
    assert len(loaded) == 3
    for number, (path, _, found) in enumerate(loaded, start=1):
        assert path.endswith(paths[number - 1].name)
        own = of_image(content, number)
        assert len(found) == len(own)
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (each["bbox"] for each in own)]
        assert np.allclose(found.xyxy, boxes, atol=0.01)
        for mask, each in zip(found.mask, own, strict=True):
            truth = coco_mask.decode(each["segmentation"]).astype(bool)
            if truth.sum() >= 30:  # outlines run through the middle of pixels
                assert (mask & truth).sum() / (mask | truth).sum() > 0.6


def test_masks(output, content):
    for number, image in enumerate(content["images"], start=1):
        stem = image["file_name"].replace(".jpg", "_jpg.png")
        with Image.open(output / "masks" / stem) as opened:
            numbers = np.array(opened)
        assert numbers.shape == (image["height"], image["width"])
        expected = np.zeros_like(numbers)
        for index, each in reversed([*enumerate(of_image(content, number), start=1)]):
            expected[coco_mask.decode(each["segmentation"]) > 0] = index
        assert np.array_equal(numbers, expected)


def test_crops(output, content, paths):
    crops = sorted((output / "crops").rglob("*.jpg"))
    assert len(crops) == 30
    names = {each["id"]: each["name"] for each in content["categories"]}
    pixels = np.asarray(read_image(paths[0])).astype(int)
    for index, each in enumerate(of_image(content, 1)):
        name = names[each["category_id"]]
        with Image.open(output / "crops" / name / f"val_000000_jpg_{index}.jpg") as crop:
            x, y, width, height = each["bbox"]
            assert abs(crop.width - width) <= 1.5
            assert abs(crop.height - height) <= 1.5
            shown = np.asarray(crop).astype(int)
        inside = pixels[int(y) : int(y) + shown.shape[0], int(x) : int(x) + shown.shape[1]]
        if min(inside.shape[:2]) > 4 and inside.shape == shown.shape:
            assert np.abs(shown - inside).mean() < 12  # JPEG


def test_overlays_and_sheet(output):
    overlays = sorted(output.glob("val*.png"))
    assert len(overlays) == 3
    with Image.open(output / "predictions.jpg") as sheet:
        assert sheet.width > 2 * 384


def test_results_alone(predictor, paths, tmp_path):
    report = predict_files(predictor, paths, tmp_path / "out", save=["none"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("predictions.json", "predictions.jsonl")
    }
    assert "results are in" in report.lines[-1]
    # They are replaced like any others.
    predict_files(predictor, paths, tmp_path / "out", save=["none"])


def test_everything_is_replaced(predictor, paths, output, tree):
    before = tree(output)
    save = ["png", "crops", "masks", "csv", "coco"]
    predict_files(predictor, paths, output, threshold=0.0, save=save)
    assert tree(output).keys() == before.keys()


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (["jpeg"], "save: expected some of jpg, png, .*got 'jpeg'"),
        (["jpg", "png"], "save: expected none alone, and jpg or png, got jpg and png"),
        (["none", "csv"], "save: expected none alone"),
    ],
)
def test_what_cannot_be_saved(save, message, predictor, paths, tmp_path):
    with pytest.raises(BotvisionError, match=message):
        predict_files(predictor, paths, tmp_path / "out", save=save)
    assert not (tmp_path / "out").exists()


def test_a_table_of_the_user_is_not_replaced(predictor, paths, tmp_path):
    (tmp_path / "predictions.csv").write_text("mine\n")
    with pytest.raises(BotvisionError, match=r"predictions\.csv is there and is not of an earlier"):
        predict_files(predictor, paths, tmp_path, save=["csv"])
    assert (tmp_path / "predictions.csv").read_text() == "mine\n"


def test_summary_counts_classes(predictor, paths, tmp_path):
    report = predict_files(predictor, paths, tmp_path / "out", threshold=0.0)
    first = report.lines[0]
    assert first.startswith("30 instances in 3 images: ")
    counted = [part.rsplit(" ", 1) for part in first.partition(": ")[2].split(", ")]
    if not any(part[-1] == "more" for part in counted):
        assert sum(int(count) for _, count in counted) == 30
