"""Class folders as people have them: files that are no images, strips, nested classes."""

import shutil

import pytest
from PIL import Image

import botvision
from botvision.datasets.folders.dataset import ClassImages
from botvision.errors import BotvisionError
from botvision.predict.evaluation import evaluate
from botvision.predict.files import predict_files
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import build_task
from botvision.tasks.classification.transforms import strip_fault


@pytest.fixture
def folder(colors, tmp_path):
    """A copy of the data."""
    return shutil.copytree(colors, tmp_path / "data")


def notes_of(folder, *overrides):
    data = (f'data.folder="{folder}"', "training.num_workers=0")
    return build_task(read_recipe("small_cifar_botnet", [*data, *overrides])).notes


def test_files_left_out_are_counted_and_the_classes_are_named(folder, classifier_run, cli):
    for number in range(12):
        (folder / "train" / "red" / f"{number}.HEIC").touch()
        (folder / "val" / "red" / f"{number}.txt").touch()
    (folder / "train" / "LICENSE").touch()
    (folder / "train" / "red" / ".DS_Store").touch()
    train, val = notes_of(folder)
    assert train.partition("; classes: ")[0].endswith(
        "56 images of 7 classes; left out: 12 .heic (no image format), 1 without a suffix (no "
        "image format); convert .heic to JPEG or PNG to use them"
    )
    assert val.endswith("35 images of 7 classes; left out: 12 .txt (no image format)")
    assert train.endswith("; classes: black, blue, cyan, green, red, white, yellow")
    status, text, _ = cli("val", classifier_run.best, "--data", folder)
    assert status == 0
    assert "val: left out: 12 .txt (no image format)" in text
    for number in range(40):
        shutil.copytree(folder / "train" / "red", folder / "train" / f"red{number:02}")
    assert notes_of(folder)[0].endswith(
        "classes: black, blue, cyan, green, red, red00, red01, red02 and 39 more"
    )


def test_a_class_whose_files_are_all_left_out(folder):
    for path in (folder / "train" / "red").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(BotvisionError, match=r"red: the folder of a class .* 8 \.heic .* JPEG"):
        ClassImages(str(folder), "train")
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()
    (folder / "train" / "a.nef").touch()
    with pytest.raises(BotvisionError, match=r"no images .*; left out: 1 \.nef .*; convert \.nef"):
        ClassImages(str(folder), "train")


@pytest.mark.parametrize("size", [(100_000, 1), (1, 100_000)])
def test_strips(size, folder, classifier_run, tmp_path):
    strip = folder / "val" / "red" / "strip.png"
    Image.new("RGB", size).save(strip)
    predictor = botvision.load(classifier_run.best)
    said = rf"strip\.png: image of {size[0]} x {size[1]}: expected a longer side of at most"
    with pytest.raises(BotvisionError, match=said):
        predictor(strip)
    with pytest.raises(BotvisionError, match=f"^image of {size[0]} x"):
        predictor(Image.open(strip))
    paths = [folder / "val" / "red" / "red0.png", strip]
    with pytest.raises(BotvisionError, match=said):
        predict_files(predictor, paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    content = predict_files(predictor, paths, tmp_path / "out", skip_bad=True).content()
    assert [each["file_name"] for each in content["skipped"]] == ["strip.png"]
    with pytest.raises(BotvisionError, match=said):
        evaluate(predictor, folder)
    found = evaluate(predictor, folder, skip_bad=True)
    assert (found["images"], found["skipped"]) == (35, 1)
    assert "35 images of 7 classes; 1 skipped" in notes_of(folder, "data.skip_bad=true")[1]


def test_how_long_an_image_may_be():
    assert strip_fault((1525, 1), 256) == ""
    assert strip_fault((1526, 1), 256) != ""
    assert strip_fault((40, 40), 100_000) == ""


def test_weights_whose_classes_were_the_innermost_folders(folder, classifier_run):
    (folder / "val" / "light").mkdir()
    (folder / "val" / "dark").mkdir()
    for name in ("white", "yellow"):
        (folder / "val" / name).rename(folder / "val" / "light" / name)
    for name in ("black", "blue", "cyan", "green", "red"):
        (folder / "val" / name).rename(folder / "val" / "dark" / name)
    with pytest.raises(BotvisionError) as raised:
        evaluate(classifier_run.best, folder)
    assert "\n" not in str(raised.value)
    for words in (
        "class 'dark': expected the 7 classes of the weights, which are the innermost folders here",
        f"move 'black' and the others directly into {folder / 'val'}, or train anew",
    ):
        assert words in str(raised.value)
