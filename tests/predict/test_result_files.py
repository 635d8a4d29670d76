"""Overlays and predictions.json; what was there before is never touched."""

import json
import shutil

import numpy as np
import pytest
from botvision.predict.result_files import predict_files
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from botvision.errors import BotvisionError
from botvision.images.decode import find_images


def quiet(done, total):
    assert 0 < done <= total


@pytest.fixture
def images(val_image, tmp_path):
    """Makes copies of a scene under names."""
    folder = tmp_path / "photos"

    def make(*names):
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(val_image) as image:
                image.save(path)
        return folder

    return make


def run(predictor, folder, output, **options):
    return predict_files(
        predictor, list(find_images(folder)), output, progress=quiet, **{"score": 0.0, **options}
    )


def test_one_image(predictor, val_image, tmp_path):
    content = run(predictor, val_image, tmp_path / "out")
    assert content == json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["images"] == [
        {"id": 1, "file_name": "val_000000.jpg", "width": 64, "height": 64}
    ]
    assert [c["id"] for c in content["categories"]] == [10 * d + 3 for d in range(1, 11)]
    found = predictor(val_image, score=0.0)
    records = content["annotations"]
    assert [r["category_id"] for r in records] == found.class_id.tolist()
    assert [r["score"] for r in records] == pytest.approx(found.confidence.tolist())
    for record, box, mask in zip(records, found.xyxy, found.mask, strict=True):
        x, y, width, height = record["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box.tolist(), abs=1e-4)
        assert np.array_equal(coco_mask.decode(record["segmentation"]).astype(bool), mask)
        assert record["image_id"] == 1
    with Image.open(tmp_path / "out" / "val_000000_jpg.png") as overlay:
        assert overlay.width >= 64


def test_score(predictor, val_image, tmp_path):
    content = run(predictor, val_image, tmp_path / "out", score=1.0)
    assert content["annotations"] == []
    assert (tmp_path / "out" / "val_000000_jpg.png").is_file()


def test_folder_with_subfolders_and_same_stems(predictor, images, tmp_path, tree):
    folder = images("a.jpg", "a.png", "sub/a.jpg", "sub/deeper/b.PNG")
    before = tree(folder)
    content = run(predictor, folder, tmp_path / "out")
    assert tree(folder) == before
    assert [image["file_name"] for image in content["images"]] == [
        *("a.jpg", "a.png", "sub/a.jpg", "sub/deeper/b.PNG")
    ]
    assert {path for path in tree(tmp_path / "out") if path.endswith(".png")} == {
        *("a_jpg.png", "a_png.png", "sub/a_jpg.png", "sub/deeper/b_png.png")
    }
    assert {a["image_id"] for a in content["annotations"]} == {1, 2, 3, 4}


def test_names_that_differ_in_case_alone(predictor, images, tmp_path, tree):
    folder = images("a.jpg", "a.JPG")
    if len(list(folder.iterdir())) < 2:
        pytest.skip("the file system does not tell them apart")
    run(predictor, folder, tmp_path / "out")
    assert len([path for path in tree(tmp_path / "out") if path.endswith(".png")]) == 2


def test_link_to_a_image_elsewhere(predictor, images, val_image, tmp_path):
    folder = images("a.jpg")
    (folder / "b.jpg").symlink_to(val_image)
    content = run(predictor, folder, tmp_path / "out")
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]


def test_output_is_the_source_folder(predictor, images, tree):
    folder = images("a.jpg")
    before = tree(folder)
    with pytest.raises(BotvisionError, match="expected another folder than the images'"):
        run(predictor, folder, folder)
    assert tree(folder) == before


def test_overlay_never_replaces_a_source(predictor, images, tree):
    folder = images("a.jpg", "out/a_jpg.png")
    before = tree(folder)
    with pytest.raises(BotvisionError, match="out"):
        run(predictor, folder, folder / "out")
    assert tree(folder) == before


@pytest.mark.parametrize("bad", ["0.jpg", "b.jpg"])
def test_image_that_is_none_stops_before_anything_is_written(bad, predictor, images, tmp_path):
    folder = images("a.jpg")
    (folder / bad).write_text("this is no image")
    with pytest.raises(BotvisionError, match=bad):
        run(predictor, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_earlier_predictions_are_replaced(predictor, images, tmp_path):
    folder = images("a.jpg")
    first = run(predictor, folder, tmp_path / "out")
    assert run(predictor, folder, tmp_path / "out") == first
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_an_earlier_output_below_the_images_is_not_predicted_again(predictor, images):
    folder = images("a.jpg")
    first = run(predictor, folder, folder / "predictions")
    assert len(first["images"]) == 1
    shutil.rmtree(folder / "predictions")
