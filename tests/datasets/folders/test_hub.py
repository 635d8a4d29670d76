"""Data sets that the library datasets reads are what their class folders are."""

import contextlib
import io
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.readers.reader_factory import create_reader
from torch.utils.data import DataLoader

import datasets
from botvision.datasets.folders.dataset import ClassImages
from botvision.errors import BotvisionError
from botvision.tasks.classification.settings import ClassImageSettings
from botvision.tasks.classification.transforms import training_transform

IMAGE = datasets.Image()
LABEL = datasets.ClassLabel(names=["no", "yes", "never"])
LABELED = datasets.ClassLabel(names=["cross", "unused", "square", "circle"])
TINY = {"stem_type": "deep", "stem_width": 4, "channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}


@pytest.fixture(autouse=True)
def offline(tmp_path_factory, monkeypatch):
    """No network; the library's cache is the tests' own."""
    cache = tmp_path_factory.getbasetemp() / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    for constants in (datasets.config, sys.modules["huggingface_hub.constants"]):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def png(color=(200, 30, 30)):
    content = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(content, "PNG")
    return content.getvalue()


def encoded(content=None, path=None):
    return {"bytes": content, "path": path}


def write(folder, split="train", *, features, **columns):
    folder.mkdir(exist_ok=True)
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    rows.to_parquet(folder / f"{split}.parquet")
    return f"hfds/{folder}"


def write_labels(folder, labels, split="train", feature=LABEL):
    images = [encoded(png((number, 0, 0))) for number in range(len(labels))]
    return write(
        folder, split, features={"image": IMAGE, "label": feature}, image=images, label=labels
    )


def names(data):
    return [data.classes[label] for label in data.labels]


def error(*arguments, **options):
    with pytest.raises(BotvisionError) as caught:
        ClassImages(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="session")
def parquet(shapes, tmp_path_factory):
    """The shapes as parquet files, the classes mixed; read only."""
    folder = tmp_path_factory.mktemp("hub") / "parquet"
    for split, name in (("train", "train"), ("val", "test")):
        paths = sorted((shapes / split).glob("*/*.png"), key=lambda path: (path.name, path))
        write(
            folder,
            name,
            features={"note": datasets.Value("string"), "img": IMAGE, "kind": LABELED},
            note=["a word"] * len(paths),
            img=[encoded(path.read_bytes(), path.name) for path in paths],
            kind=[path.parent.name for path in paths],
        )
    return folder


def contents(data):
    """Each image's class and pixels, in an order of their own."""
    data.transform = lambda photo: np.asarray(photo).tobytes()
    return sorted((data.classes[label], image) for image, label, _ in _items(data))


def _items(data):
    return [data[(0, index)] for index in range(len(data))]


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_images_are_those_of_class_folders(shapes, parquet, split):
    expected = contents(ClassImages(str(shapes), split))
    for folder in (shapes, parquet):  # class folders are one of the library's forms, too
        assert contents(ClassImages(f"hfds/{folder}", split)) == expected


def test_rows_are_what_they_are_to_timm(parquet):
    data = ClassImages(f"hfds/{parquet}", "train")
    theirs = create_reader(f"hfds/{parquet}", split="train", input_key="img", target_key="kind")
    data.transform = lambda photo: np.asarray(photo)
    known = {place: name for name, place in theirs.class_to_idx.items()}
    assert len(data) == len(theirs) == 120
    for index in range(0, 120, 7):
        file, place = theirs[index]
        image, label, _ = data[(0, index)]
        assert np.array_equal(image, np.asarray(Image.open(file).convert("RGB")))
        assert data.classes[label] == known[place]
        assert data.name(index) == f"row {index} ({theirs.filename(index)})"
    # In the library's order, without those that have no images.
    assert data.classes == ("cross", "square", "circle")


def test_workers_and_opening_anew_change_nothing(parquet):
    settings = ClassImageSettings(augmentation="rand-m9-n2-mstd0.5", erasing=0.5)

    def opened():
        data = ClassImages(f"hfds/{parquet}", "train", seed=3)
        data.transform = training_transform(settings, 32, mean=(0.5,) * 3, std=(0.2,) * 3)
        return data

    data, keys = opened(), [(epoch, index) for epoch in (0, 2) for index in range(0, 120, 11)]
    wanted = {key: data[key][:2] for key in keys}
    loader = DataLoader(opened(), batch_size=None, sampler=keys[::-1], num_workers=2)
    found = {tuple(map(int, key)): (image, label) for image, label, key in loader}
    assert found.keys() == wanted.keys()
    for key, (image, label) in wanted.items():
        assert torch.equal(found[key][0], image)
        assert found[key][1] == label


@pytest.mark.parametrize(
    ("feature", "labels", "classes"),
    [
        (datasets.ClassLabel(names=["10", "b", "9"]), [2, 0, 2], ("10", "9")),
        (datasets.Value("int64"), [10, 9, 10], ("9", "10")),
        (datasets.Value("uint8"), [0, 1, 0], ("0", "1")),
        (datasets.Value("string"), ["b", "A", "b"], ("A", "b")),
    ],
)
def test_kinds_of_classes(tmp_path, feature, labels, classes):
    data = ClassImages(write_labels(tmp_path / "data", labels, feature=feature), "train")
    assert data.classes == classes
    expected = feature.int2str(labels) if hasattr(feature, "names") else [*map(str, labels)]
    assert names(data) == expected


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        (
            {"jpg": IMAGE, "cls": datasets.Value("int64"), "__key__": datasets.Value("string")},
            "cls",
        ),
        ({"img": IMAGE, "coarse_label": LABEL, "fine_label": LABEL}, "fine_label"),
        ({"image": IMAGE, "mask": IMAGE, "other": LABEL, "label": LABEL}, "label"),
        ({"image": IMAGE, "label": datasets.Value("float32"), "kind": LABEL}, "kind"),
        ({"photo": IMAGE, "labels": LABEL}, "labels"),
    ],
)
def test_columns_are_found(tmp_path, features, chosen):
    photo, *_ = features
    columns = {name: [0, 1] for name in features}
    for name, feature in features.items():
        if feature is IMAGE:
            colors = [(9, 0, 0), (0, 9, 0)] if name == photo else [(0, 0, 0)] * 2
            columns[name] = [encoded(png(color)) for color in colors]
    data = ClassImages(
        write(tmp_path / "data", features=features, **{**columns, chosen: [1, 0]}), "train"
    )
    data.transform = lambda photo: photo.getpixel((0, 0))
    assert [image for image, _, _ in _items(data)] == [(9, 0, 0), (0, 9, 0)]
    first = ["1", "0"] if chosen == "cls" else ["yes", "no"]
    assert names(data) == first


@pytest.mark.parametrize(("asked", "there"), [("val", "validation"), ("val", "test"), ("a", "a")])
def test_splits_are_found_by_their_usual_names(tmp_path, asked, there):
    # A list of files is how the library is told of other names.
    folder = tmp_path / "data"
    write_labels(folder, [0, 1, 1, 0], "first")
    source = write_labels(folder, [1, 0], "second")
    files = [
        {"split": "train", "path": "first.parquet"},
        {"split": there, "path": "second.parquet"},
    ]
    configs = json.dumps([{"config_name": "default", "data_files": files}])
    (folder / "README.md").write_text(f"---\nconfigs: {configs}\n---\n")
    assert names(ClassImages(source, asked)) == ["yes", "no"]
    found = error(source, "none")
    assert f"{source}: no split 'none', got train, {there}" in found
    assert "data.train_split or data.val_split" in found


def test_classes_are_matched_by_name(tmp_path):
    train = ClassImages(write_labels(tmp_path / "data", [1, 0, 1]), "train")
    assert train.classes == ("no", "yes")  # "never" has no images
    # By itself, the second data set would number its classes otherwise.
    feature = datasets.ClassLabel(names=["x", "yes", "no"])
    same = write_labels(tmp_path / "same", [1, 2, 1], "test", feature)
    assert names(ClassImages(same, "val", classes=train.classes)) == ["yes", "no", "yes"]
    other = write_labels(tmp_path / "other", [1, 0], "test", feature)
    found = error(other, "val", classes=train.classes)
    assert f"{other}, split test: class 'x': expected the 2 classes of the training data" in found


def test_bad_images_are_left_out_and_counted(tmp_path):
    images = [encoded(png((9 * number, 0, 0)), f"{number}.png") for number in range(6)]
    images[1] = encoded(png()[:-25], "cut.png")
    images[3] = None
    images[4] = encoded(b"no image", "text.png")
    source = write(
        tmp_path / "data",
        features={"image": IMAGE, "label": LABEL},
        image=images,
        label=[0, 0, 0, 1, 1, 1],
    )
    data = ClassImages(source, "train", skip_bad=True)
    assert names(data) == ["no", "no", "yes"]
    assert [data.name(index) for index in range(3)] == [
        "row 0 (0.png)",
        "row 2 (2.png)",
        "row 5 (5.png)",
    ]
    data.transform = lambda photo: photo.getpixel((0, 0))[0]
    assert [image for image, _, _ in _items(data)] == [0, 18, 45]
    cut, none, text = data.skipped
    assert f"{source}, split train: row 1 (cut.png): cannot be decoded" in cut
    assert f"{source}, split train: row 3: expected an image, got none" in none
    assert f"{source}, split train: row 4 (text.png): expected an image" in text
    assert "3 images of 2 classes; 3 skipped, the first" in data.summary()
    strict = ClassImages(source, "train")
    with pytest.raises(BotvisionError, match="row 3: expected an image"):
        strict[(0, 3)]


def test_bad_files_are_named(shapes, tmp_path):
    shutil.copytree(shapes / "val", tmp_path / "shapes" / "train")
    bad = tmp_path / "shapes" / "train" / "cross" / "3.png"
    bad.write_text("no image")
    data = ClassImages(f"hfds/{tmp_path / 'shapes'}", "train", skip_bad=True)
    (found,) = data.skipped
    assert f"({bad}): expected an image" in found
    assert data.labels.bincount().tolist() == [12, 11, 12]


@pytest.mark.parametrize(
    ("features", "columns", "expected"),
    [
        ({"label": LABEL}, {"label": [0]}, "expected one column of type Image"),
        (
            {"a": IMAGE, "b": IMAGE, "label": LABEL},
            {"a": [encoded(png())], "b": [encoded(png())], "label": [0]},
            "got a (Image), b (Image), label (ClassLabel)",
        ),
        ({"image": IMAGE}, {"image": [encoded(png())]}, "expected classes in a column"),
        (
            {"image": IMAGE, "a": LABEL, "b": LABEL},
            {"image": [encoded(png())], "a": [0], "b": [0]},
            "got image (Image), a (ClassLabel), b (ClassLabel)",
        ),
        (
            {"image": IMAGE, "label": LABEL},
            {"image": [encoded(png())] * 2, "label": [0, -1]},
            "row 1: expected a class in column 'label', got -1",
        ),
        (
            {"image": IMAGE, "label": datasets.Value("string")},
            {"image": [encoded(png())] * 2, "label": [None, "cat"]},
            "row 0: expected a class in column 'label', got None",
        ),
    ],
)
def test_what_cannot_be_learnt_from(tmp_path, features, columns, expected):
    source = write(tmp_path / "data", features=features, **columns)
    found = error(source, "train")
    assert found.startswith(f"{source}, split train: ")
    assert expected in found


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    for name, reason in (
        ("owner/name", "Couldn't reach 'owner/name' on the Hub"),
        (tmp_path / "none", "Couldn't find any data file"),
        ("", ""),
    ):
        found = error(f"hfds/{name}", "train")
        assert found.startswith(f"hfds/{name}: cannot be loaded ({reason}")
        assert "needs the network" in found
    source = write_labels(tmp_path / "data", [])
    assert f"{source}: cannot be loaded" in error(source, "train")
    (tmp_path / "data" / "train.parquet").write_bytes(b"no table")
    assert f"{source}: cannot be loaded" in error(source, "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    found = error("hfds/owner/name", "train")
    assert "hfds/owner/name: " in found
    assert found.endswith("pip install 'botvision[hf]'")


def test_code_of_a_data_set_is_not_run(tmp_path):
    folder = tmp_path / "data"
    source = write_labels(folder, [0, 1])
    for name in ("data.py", "__init__.py", "dataset.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with contextlib.suppress(BotvisionError):
        ClassImages(source, "train")
    assert not (tmp_path / "ran").exists()


def test_the_commands_take_them(parquet, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(parquet.parent)
    data = f"hfds/{parquet.name}"
    settings = (
        f"model.classifier_arguments={json.dumps(TINY)}",
        "training.epochs=1",
        "training.batch_size=30",
        "training.num_workers=0",
    )
    recipe = ["small_cifar_botnet", "--data", data]
    for each in settings:
        recipe += ["--set", each]
    status, _, told = cli("data", "preview", *recipe, "--output", tmp_path / "preview.png")
    assert status == 0, told
    status, text, told = cli("train", *recipe, "--runs", tmp_path, "--name", "run", "--json")
    assert status == 0, told
    trained = json.loads(text)["metrics"]
    run = tmp_path / "classification" / "run"
    first, *_ = json.loads((run / "predictions.json").read_text())
    assert (first["image"], first["class"]) == ("row 0 (0.png)", "circle")
    weights = run / "best.safetensors"
    status, text, told = cli("val", weights, "--data", data, "--skip-bad", "--json")
    assert status == 0, told
    found = json.loads(text)
    assert (found["images"], found["skipped"]) == (36, 0)
    assert found["top1"] == trained["top1"]
    assert found["per_class"] == trained["per_class"]
    assert [*found["per_class"]] == ["cross", "square", "circle"]
