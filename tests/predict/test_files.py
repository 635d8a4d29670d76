"""Predictions of image files as files; the images are never touched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

import botvision
from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.images.find import find_images
from botvision.predict.files import predict_files


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
        predictor,
        find_images(folder).paths,
        output,
        progress=quiet,
        **{"threshold": 0.0, **options},
    ).content()


def test_one_image(predictor, val_image, tmp_path):
    content = run(predictor, val_image, tmp_path / "out")
    assert content == json.loads((tmp_path / "out" / "predictions.json").read_text())
    (record,) = content["images"]
    # This network keeps everything that it finds.
    assert record.pop("max_detections") == 10
    assert record == {"id": 1, "file_name": "val_000000.jpg", "width": 64, "height": 64}
    assert [c["id"] for c in content["categories"]] == [10 * d + 3 for d in range(1, 11)]
    found = predictor(val_image, threshold=0.0)
    records = content["annotations"]
    assert [r["category_id"] for r in records] == found.class_id.tolist()
    assert [r["score"] for r in records] == pytest.approx(found.confidence.tolist())
    for record, box, mask in zip(records, found.xyxy, np.asarray(found.mask), strict=True):
        x, y, width, height = record["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box.tolist(), abs=1e-4)
        assert np.array_equal(coco_mask.decode(record["segmentation"]).astype(bool), mask)
        assert record["image_id"] == 1
    with Image.open(tmp_path / "out" / "val_000000_jpg.jpg") as overlay:
        assert overlay.width >= 64


def test_threshold(predictor, val_image, tmp_path):
    content = run(predictor, val_image, tmp_path / "out", threshold=1.0)
    assert content["annotations"] == []
    assert (tmp_path / "out" / "val_000000_jpg.jpg").is_file()


def test_folder_with_subfolders_and_same_stems(predictor, images, tmp_path, tree):
    folder = images("a.jpg", "a.png", "sub/a.jpg", "sub/deeper/b.PNG")
    before = tree(folder)
    content = run(predictor, folder, tmp_path / "out")
    assert tree(folder) == before
    assert [image["file_name"] for image in content["images"]] == [
        *("a.jpg", "a.png", "sub/a.jpg", "sub/deeper/b.PNG")
    ]
    assert {path for path in tree(tmp_path / "out") if path.endswith(("jpg.jpg", "png.jpg"))} == {
        *("a_jpg.jpg", "a_png.jpg", "sub/a_jpg.jpg", "sub/deeper/b_png.jpg")
    }
    assert {a["image_id"] for a in content["annotations"]} == {1, 2, 3, 4}


def test_names_that_differ_in_case_alone(predictor, images, tmp_path, tree):
    folder = images("a.jpg", "a.JPG")
    if len(list(folder.iterdir())) < 2:
        pytest.skip("the file system does not tell them apart")
    run(predictor, folder, tmp_path / "out")
    assert {path for path in tree(tmp_path / "out") if path.startswith("a")} == {
        *("a_jpg.jpg", "a_jpg_2.jpg")
    }


def test_link_to_an_image_elsewhere(predictor, images, val_image, tmp_path):
    folder = images("a.jpg")
    (folder / "b.jpg").symlink_to(val_image)
    content = run(predictor, folder, tmp_path / "out")
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.jpg"]


def test_output_is_the_source_folder(predictor, images, tree):
    folder = images("a.jpg")
    before = tree(folder)
    with pytest.raises(BotvisionError, match="expected another folder than that of the images"):
        run(predictor, folder, folder)
    assert tree(folder) == before


def test_overlay_never_replaces_a_source(predictor, images, tree):
    folder = images("a.jpg", "out/a_jpg.jpg")
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
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("a_jpg.jpg", "predictions.jpg", "predictions.json", "predictions.jsonl")
    }


def test_the_output_may_lie_below_the_images(predictor, images):
    folder = images("a.jpg")
    first = run(predictor, folder, folder / "predictions")
    assert len(first["images"]) == 1
    assert (folder / "predictions" / "predictions.json").exists()


# Classifiers.


@pytest.fixture
def photos(colors, tmp_path):
    folder = tmp_path / "photos"
    for path in sorted((colors / "val").rglob("*0.png")):
        (folder / path.parent.name[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name[0] / path.name)
    return folder


def test_a_classifiers_files(cli, classifier_run, photos, tmp_path, tree):
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


def test_flips_change_the_probabilities(cli, classifier_run, photos, tmp_path):
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


@pytest.fixture
def mine(photos, tmp_path):
    """Three images, of which one has the name of a classifier's sheet."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for source, name in zip(
        sorted(photos.rglob("*.png")), ("predictions.jpg", "b.png", "c.png"), strict=False
    ):
        read_image(source).save(folder / name)
    return folder


@pytest.mark.parametrize("how", ["absolute", "relative", "link"])
def test_a_sheet_never_replaces_an_image(
    how, classifier_run, mine, photos, tmp_path, tree, monkeypatch
):
    folder = mine
    before = tree(folder)
    classifier = botvision.load(classifier_run.best)
    output = folder
    if how == "relative":
        monkeypatch.chdir(tmp_path)
        output = Path("mine")
    elif how == "link":
        output = tmp_path / "link"
        output.symlink_to(folder)
    with pytest.raises(BotvisionError, match="is one of the images"):
        run(classifier, folder, output)
    with pytest.raises(BotvisionError, match="is one of the images"):
        run(classifier, folder / "predictions.jpg", output)
    # Nor if it is one of several folders.
    with pytest.raises(BotvisionError, match=r"predictions\.jpg is one of the images"):
        predict_files(classifier, find_images([folder, photos]).paths, output)
    assert tree(folder) == before
    run(classifier, folder / "b.png", tmp_path / "out")
    assert (tmp_path / "out" / "predictions.jpg").is_file()


def test_a_sheet_beside_images_of_other_names(classifier_run, photos, tmp_path):
    """Images in folders that differ may be written between."""
    classifier = botvision.load(classifier_run.best)
    report = predict_files(classifier, find_images(photos).paths, photos / "out")
    content = report.content()
    assert len(content["images"]) == 7
    written = {path.name for path in (photos / "out").iterdir()}
    assert written == {"predictions.json", "predictions.jpg", "predictions.jsonl"}


# Both.


@pytest.fixture(params=["detector", "classifier"])
def model(request, predictor):
    if request.param == "detector":
        return predictor
    return botvision.load(request.getfixturevalue("classifier_run").best)


def test_results_are_those_of_each_image_in_order(model, images, tmp_path):
    names = [f"{folder}/{number}.png" for folder in "cab" for number in range(4)]
    folder = images(*names)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        read_image(path).rotate(30 * number).save(path)
    content = run(model, folder, tmp_path / "out", batch_size=5)
    assert [image["file_name"] for image in content["images"]] == sorted(names)
    for image in content["images"]:
        alone = model(folder / image["file_name"], threshold=0.0)
        if "predicted" in image:
            found = [each["probability"] for each in image["predicted"]]
        else:
            assert image["id"] == sorted(names).index(image["file_name"]) + 1
            records = content["annotations"]
            found = [each["score"] for each in records if each["image_id"] == image["id"]]
        expected = alone.confidence[: len(found)].tolist()
        assert found == pytest.approx(expected, abs=0.02)


def test_the_order_is_the_one_given(model, images, tmp_path):
    folder = images("a.png", "b.png", "c.png")
    paths = [folder / name for name in ("c.png", "a.png", "b.png")]
    content = predict_files(model, paths, tmp_path / "out").content()
    assert [image["file_name"] for image in content["images"]] == ["c.png", "a.png", "b.png"]


def test_an_image_given_twice_is_predicted_once(model, images, tmp_path, monkeypatch):
    folder = images("a.png", "b.png")
    monkeypatch.chdir(folder)
    paths = [folder / "b.png", folder / "a.png", Path("b.png"), folder / "a.png"]
    content = predict_files(model, paths, tmp_path / "out").content()
    assert [image["file_name"] for image in content["images"]] == ["b.png", "a.png"]
    assert [image.get("id") for image in content["images"]] in ([1, 2], [None, None])


def test_the_same_name_in_many_folders(model, images, tmp_path, tree):
    names = [f"{number:02}/a.jpg" for number in range(11)]
    folder = images(*names)
    before = tree(folder)
    content = run(model, folder, tmp_path / "out", batch_size=4)
    assert [image["file_name"] for image in content["images"]] == names
    assert tree(folder) == before
    overlays = {path for path in tree(tmp_path / "out") if path.endswith("_jpg.jpg")}
    if model.task != "classification":
        assert overlays == {name.replace(".jpg", "_jpg.jpg") for name in names}


@pytest.mark.parametrize("bad", ["0.png", "b.png", "sub/c.png"])
def test_an_image_that_is_none(bad, model, images, tmp_path):
    folder = images("a.png", "sub/d.png")
    (folder / bad).write_text("this is no image")
    with pytest.raises(BotvisionError, match=bad):
        run(model, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    content = run(model, folder, tmp_path / "out", skip_bad=True)
    assert [image["file_name"] for image in content["images"]] == ["a.png", "sub/d.png"]
    (skipped,) = content["skipped"]
    assert skipped["file_name"] == bad
    assert "expected an image" in skipped["reason"]
    assert content == json.loads((tmp_path / "out" / "predictions.json").read_text())


def test_an_image_that_is_damaged_within(model, images, tmp_path):
    folder = images("a.png", "b.png", "c.png")
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BotvisionError, match=r"b\.png: cannot be decoded"):
        run(model, folder, tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.json").exists()
    content = run(model, folder, tmp_path / "out", skip_bad=True)
    assert [image["file_name"] for image in content["images"]] == ["a.png", "c.png"]
    assert [each["file_name"] for each in content["skipped"]] == ["b.png"]


def test_no_image_can_be_read(model, images, tmp_path):
    folder = images("a.png", "b.png")
    whole = (folder / "a.png").read_bytes()
    for content in (b"text", whole[: len(whole) // 2]):
        for name in ("a.png", "b.png"):
            (folder / name).write_bytes(content)
        with pytest.raises(BotvisionError, match="none of the images can be read"):
            run(model, folder, tmp_path / "out", skip_bad=True)
        assert not (tmp_path / "out").exists()


def test_output_that_is_a_file(model, images, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BotvisionError, match="out: expected a folder, got a file"):
        run(model, images("a.png"), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_no_image_at_all(model, tmp_path):
    with pytest.raises(ValueError, match="paths: expected one image or more, got none"):
        predict_files(model, [], tmp_path / "out")


def test_few_images_are_in_memory(model, images, tmp_path, monkeypatch):
    folder = images(*(f"{number}.png" for number in range(9)))
    sizes = []
    predict = type(model).predict

    def watched(self, batch, **options):
        sizes.append(len(batch))
        return predict(self, batch, **options)

    monkeypatch.setattr(type(model), "predict", watched)
    run(model, folder, tmp_path / "out", batch_size=4)
    assert sizes == [4, 4, 1]


def test_a_detector_takes_no_flips(cli, trained_run, val_image, tmp_path):
    status, _, err = cli(
        *("predict", val_image, "--weights", trained_run.last, "--output", tmp_path, "--tta")
    )
    assert status == 2
    assert err == "error: tta: expected a classifier, got a detector; leave it out\n"
