"""Layouts that people have are recognized by their files, and COCO's splits are found."""

import json

import pytest
from PIL import Image

from botvision.datasets.layouts import coco_splits, detect_layout, find_coco_split
from botvision.errors import BotvisionError

COCO = '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}'
LABELME = '{"version": "5.0", "flags": {}, "shapes": [], "imagePath": "a.jpg"}'


@pytest.fixture
def make(tmp_path):
    """A function that makes files in a folder; a path that ends with / is a folder."""

    def run(*paths, text=COCO, **texts):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for name in paths:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            elif name.endswith(".jpg"):
                Image.new("RGB", (4, 3)).save(path)
            else:
                path.write_text(text)
        return folder

    return run


# name: (files, annotation file of "train", image folder of "train")
COCO_FOLDERS = {
    "ours": (["images/a.jpg", "annotations/instances_train.json"], None, "images"),
    "with the year": (["images/a.jpg", "annotations/instances_train2017.json"], None, "images"),
    "COCO's own": (
        ["train2017/a.jpg", "val2017/b.jpg", "annotations/instances_train2017.json",
         "annotations/instances_val2017.json", "annotations/captions_train2017.json",
         "annotations/person_keypoints_train2017.json"],
        "annotations/instances_train2017.json", "train2017",
    ),
    "images by split in images": (
        ["images/train2017/a.jpg", "images/val2017/b.jpg", "annotations/instances_train2017.json"],
        "annotations/instances_train2017.json", "images/train2017",
    ),
    "Roboflow's": (
        ["train/a.jpg", "train/_annotations.coco.json", "valid/_annotations.coco.json",
         "test/_annotations.coco.json"],
        "train/_annotations.coco.json", "train",
    ),
    "short name": (["images/a.jpg", "annotations/train.json"], None, "images"),
    "short name, own folders": (["train/a.jpg", "annotations/train.json", "val/"], None, "train"),
    "beside the folders": (["images/train/a.jpg", "train.json"], "train.json", "images/train"),
    "beside the images' folder": (["train/a.jpg", "train.json"], "train.json", "train"),
    "training": (["images/a.jpg", "annotations/instances_training.json"], None, "images"),
    "the exact name first": (
        ["images/a.jpg", "annotations/instances_train.json",
         "annotations/instances_train2017.json"],
        "annotations/instances_train.json", "images",
    ),
    "an empty images folder": (
        ["images/", "train/a.jpg", "annotations/instances_train.json"],
        "annotations/instances_train.json", "train",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "annotations", "images"), COCO_FOLDERS.values(), ids=COCO_FOLDERS
)
def test_coco_folders(make, files, annotations, images):
    folder = make(*files)
    assert detect_layout(folder).format == "coco"
    found = find_coco_split(folder, "train")
    assert found.annotations == folder / (annotations or files[1])
    assert found.images == folder / images
    assert (found.images / "a.jpg").is_file()


def test_names_with_the_images_folder(make):
    """Where file names begin with the split, images/ and not images/train/ is meant."""
    text = json.dumps({"images": [{"file_name": "train\u002fä.jpg", "id": 1}]})
    folder = make("images/train/ä.jpg", "annotations/instances_train.json", text=text)
    assert find_coco_split(folder, "train").images == folder / "images"


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("val", "valid", "validation", "test"), "val"),
        (("valid", "test"), "valid"),
        (("validation", "test"), "validation"),
        (("eval", "test"), "eval"),
        (("test",), "test"),
    ],
)
@pytest.mark.parametrize("form", ["{}/_annotations.coco.json", "annotations/instances_{}.json"])
def test_val_by_other_names(make, there, taken, form):
    folder = make("images/a.jpg", "train/", *(form.format(word) for word in there))
    found = find_coco_split(folder, "val")
    assert found.name == taken
    assert found.annotations == folder / form.format(taken)


def test_splits(make):
    form = "{}/_annotations.coco.json"
    folder = make(form.format("train"), form.format("test"))
    assert {split: each.name for split, each in coco_splits(folder).items()} == {
        "train": "train",
        "val": "test",
    }
    make(form.format("valid"))
    assert {split: each.name for split, each in coco_splits(folder).items()} == {
        "train": "train",
        "val": "valid",
        "test": "test",
    }


def test_a_set_that_is_not_split(make):
    folder = make("_annotations.coco.json", "a.jpg")
    assert detect_layout(folder).format == "coco"
    (whole,) = coco_splits(folder).values()
    assert (whole.annotations, whole.images) == (folder / "_annotations.coco.json", folder)
    for split in ("train", "val"):
        with pytest.raises(BotvisionError, match=r"botvision data convert .*_split"):
            find_coco_split(folder, split)


OTHERS = {
    "yolo": (
        ["data.yaml", "train/images/a.jpg", "train/labels/a.txt"],
        "names: [cat]",
        "data.yaml",
    ),
    "yolo by another name": (["coco8.yaml", "images/a.jpg"], "nc: 1\nnames: [cat]", "coco8.yaml"),
    "yolo without data.yaml": (["images/a.jpg", "labels/a.txt"], "0 0 0 1 1", "labels/a.txt"),
    "voc": (["JPEGImages/a.jpg", "Annotations/a.xml"], "<annotation/>", "Annotations/a.xml"),
    "voc beside images": (["a.jpg", "a.xml"], "<annotation/>", "a.xml"),
    "voc by split": (["train/a.jpg", "train/a.xml"], "<annotation/>", "train/a.xml"),
    "labelme": (["a.jpg", "a.json"], LABELME, "a.json"),
    "labelme by split": (["train/a.jpg", "train/a.json"], LABELME, "train/a.json"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_layouts(make, name):
    files, text, evidence = OTHERS[name]
    folder = make(*files, text=text)
    layout = detect_layout(folder)
    assert (layout.format, layout.evidence) == (name.split()[0], evidence)
    assert evidence in str(layout)
    # To train on it directly is answered with the command that makes it possible.
    with pytest.raises(BotvisionError) as caught:
        find_coco_split(folder, "train")
    assert f"convert with: botvision data convert {folder} {folder}_coco" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_layouts(make):
    folder = make("data.yaml", text="names: [cat]")
    make("annotations/instances_train.json", "images/a.jpg")
    with pytest.raises(BotvisionError, match=r"COCO layout .* and YOLO layout .*name the format"):
        detect_layout(folder)
    assert detect_layout(folder, "yolo").evidence == "data.yaml"
    with pytest.raises(BotvisionError, match="expected a labelme layout"):
        detect_layout(folder, "labelme")
    # COCO's own files are enough to train on.
    assert find_coco_split(folder, "train").images == folder / "images"


@pytest.mark.parametrize(
    "files", [[], ["photo.jpg"], ["config.json"], ["notes.txt", "settings.yaml"]]
)
def test_no_layout(make, files):
    folder = make(*files, text="{}")
    with pytest.raises(BotvisionError) as caught:
        detect_layout(folder)
    for word in (str(folder), "COCO", "YOLO", "Pascal VOC", "labelme", *(files or ["empty"])):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["images/"], "expected annotations/instances_train.json, got no such file; known are"),
        (
            ["images/", "annotations/instances_train1.json", "annotations/instances_train2.json"],
            "got instances_train1.json, instances_train2.json",
        ),
        (["annotations/instances_train.json"], "expected images in images/ or train2017/"),
        (["annotations/instances_trainer.json", "images/"], "trainer.json holds all images"),
    ],
)
def test_a_split_that_is_missing(make, files, message):
    with pytest.raises(BotvisionError, match=message):
        find_coco_split(make(*files), "train")


def test_no_folder(tmp_path):
    for ask in (detect_layout, lambda folder: find_coco_split(folder, "train")):
        with pytest.raises(BotvisionError, match="none: no such data folder"):
            ask(tmp_path / "none")


def test_a_file_name_does_not_lead_out(make):
    folder = make("images/", "train/a.jpg", "annotations/instances_train.json",
                  text=COCO.replace("a.jpg", "../train/a.jpg"))  # fmt: skip
    assert find_coco_split(folder, "train").images == folder / "images"
