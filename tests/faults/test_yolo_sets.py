"""YOLO sets as other tools, systems and computers write them: what is read, and what is noted."""

import json
import unicodedata

import pytest
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.errors import BotvisionError

LABELS = "0 0.25 0.25 0.5 0.5\n1 0.75 0.5 0.25 0.5\n"  # of 40 x 20 pixels
BOXES = [(0, [0, 0, 20, 10]), (1, [25, 5, 10, 10])]


@pytest.fixture
def folder(tmp_path):
    """A function of texts by path that writes them and images of the paths whose text is None."""

    def make(texts):
        root = tmp_path / "set"
        for name, text in texts.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                Image.new("RGB", (40, 20)).save(
                    path, "JPEG" if path.suffix.lower() in (".jpg", ".jfif") else None
                )
            elif isinstance(text, bytes):
                path.write_bytes(text)
            else:
                path.write_text(text, encoding="utf-8")
        return root

    return make


@pytest.fixture
def converted(folder, tmp_path):
    """A function of texts by path that converts them and returns the report and the images.

    Every image has the two boxes above, but for those that are named as unlabeled.
    """

    def run(texts, unlabeled=(), **options):
        report = convert(folder(texts), tmp_path / "out", **options)
        names = {}
        for split in report.images:
            path = tmp_path / "out" / "annotations" / f"instances_{split}.json"
            content = json.loads(path.read_text())
            assert [each["name"] for each in content["categories"]] == ["cat", "dog"]
            names[split] = [each["file_name"].partition("/")[2] for each in content["images"]]
            for image, name in zip(content["images"], names[split], strict=True):
                own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
                boxes = [] if name in unlabeled else BOXES
                assert [(a["category_id"], a["bbox"]) for a in own] == boxes, name
        return report, names

    return run


def pairs(*stems, images="{}.png", labels="{}.txt"):
    """Images and label files of these stems."""
    made = {}
    for stem in stems:
        made |= {images.format(stem): None, labels.format(stem): LABELS}
    return made


def noted(report, *words):
    return any(all(word in note for word in words) for note in report.notes)


SPLIT = {
    **pairs("a", "b", images="train/images/{}.png", labels="train/labels/{}.txt"),
    **pairs("c", images="valid/images/{}.png", labels="valid/labels/{}.txt"),
}
YAML = "names: [cat, dog]\n"


@pytest.mark.parametrize("up", ["", "./", "../", "../../", "..\\", "../data/"])
@pytest.mark.parametrize("name", ["valid", "val"])
def test_splits_that_were_not_exported(converted, up, name):
    """Roboflow names train, valid and test whether or not they were exported."""
    lines = [f"train: {up}train/images", f"val: {up}valid/images", f"test: {up}test/images"]
    yaml = "\n".join([*lines, YAML]).replace("val:", f"{name}:")
    if "\\" in up:
        yaml = yaml.replace("/", "\\")
    report, names = converted({**SPLIT, "data.yaml": yaml})
    assert names == {"train": ["a.png", "b.png"], "val": ["c.png"]}
    assert noted(report, "test:", "is not there")
    if up not in ("", "./"):
        assert noted(report, "train:", "is taken as train/images")


def test_a_val_split_that_was_not_exported(converted):
    texts = {name: text for name, text in SPLIT.items() if "valid" not in name}
    yaml = f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n{YAML}"
    report, names = converted({**texts, "data.yaml": yaml})
    assert sorted(names["train"] + names["val"]) == ["a.png", "b.png"]
    assert noted(report, "val: ../valid/images is not there")
    assert noted(report, "1 of the 2 images were chosen")


def test_a_split_is_not_taken_for_another(folder, tmp_path):
    """Where both splits are taken by the ends of their paths, they must not become the same."""
    texts = pairs("a", "b", images="images/{}.png", labels="labels/{}.txt")
    for path in ("train/images", "/content/set/train/images"):
        yaml = f"train: {path}\nval: {path.replace('train', 'val')}\n{YAML}"
        root = folder({**texts, "data.yaml": yaml})
        with pytest.raises(BotvisionError, match="train: expected an image folder"):
            convert(root, tmp_path / "out")


def test_images_of_two_splits(converted):
    report, _ = converted({**SPLIT, "data.yaml": f"train: train\nval: [valid, train]\n{YAML}"})
    assert noted(report, "2 of the 3 images of val are in train, too")


ABSOLUTE = ["/content/drive/MyDrive/set", "C:\\Users\\me\\set", "D:/data/set", "//nas/share/set"]


@pytest.mark.parametrize("base", ABSOLUTE)
@pytest.mark.parametrize("lists", [False, True])
def test_paths_of_another_computer(converted, base, lists):
    between = "\\" if "\\" in base else "/"
    texts = pairs("a", "b", images="images/train/{}.png", labels="labels/train/{}.txt")
    texts |= pairs("c", images="images/val/{}.png", labels="labels/val/{}.txt")
    train, val = (between.join((base, "images", split)) for split in ("train", "val"))
    if lists:
        texts["train.txt"] = "".join(f"{train}{between}{name}.png\n" for name in "ab")
        texts["val.txt"] = f"{val}{between}c.png"
        train, val = (f"{base}{between}{split}.txt" for split in ("train", "val"))
    texts["data.yaml"] = f"path: {base}\ntrain: {train}\nval: {val}\n{YAML}"
    report, names = converted(texts)
    assert names == {"train": ["a.png", "b.png"], "val": ["c.png"]}
    assert noted(report, "path:", base)
    assert noted(report, "train:", "is taken as")
    if lists:
        assert noted(report, "2 paths", "images/train/a.png")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_windows(converted, encoding):
    texts = pairs("ü a", "b", images="images/train/{}.JPG", labels="labels/train/{}.txt")
    texts["train.txt"] = ".\\images\\train\\ü a.JPG\r\n.\\images\\train\\b.JPG\r\n".encode(encoding)
    texts["data.yaml"] = f"train: train.txt\nval: images\\train\n{YAML}"
    report, names = converted(texts)
    assert sorted(names["train"]) == ["b.JPG", "ü a.JPG"]
    assert not noted(report, "is taken as")


def test_labels_in_the_letters_of_a_mac(converted):
    texts = pairs("b", images="images/{}.png", labels="labels/{}.txt")
    texts["images/ü.png"] = None
    texts[f"labels/{unicodedata.normalize('NFD', 'ü')}.txt"] = LABELS
    report, names = converted({**texts, "data.yaml": f"train: images\n{YAML}"})
    assert sorted(names["train"] + names["val"]) == ["b.png", "ü.png"]
    assert not noted(report, "label file")


def test_a_name_in_another_case(folder, tmp_path):
    texts = pairs("a", "b", images="images/{}.JPG", labels="labels/{}.txt")
    texts |= {"train.txt": "images/a.jpg\nimages/b.JPG", "data.yaml": f"train: train.txt\n{YAML}"}
    with pytest.raises(BotvisionError, match=r"train\.txt: line 1: .*there is a\.JPG"):
        convert(folder(texts), tmp_path / "out")


CVAT = {
    "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
    "obj.names": "cat\ndog\n",
}
BESIDE = {"classes.txt": "cat\ndog\n"}
NAMES = "cat\ndog\n"


@pytest.mark.parametrize(
    ("texts", "val"),
    [
        # CVAT "YOLO 1.1", without and with subsets
        (
            {
                **CVAT,
                **pairs("a", "b", images="obj_train_data/{}.png", labels="obj_train_data/{}.txt"),
                "train.txt": "data/obj_train_data/a.png\ndata/obj_train_data/b.png\n",
            },
            None,
        ),
        (
            {
                "obj.data": f"{CVAT['obj.data']}valid = data/valid.txt\n",
                "obj.names": NAMES,
                **pairs("a", "b", images="obj_Train_data/{}.png", labels="obj_Train_data/{}.txt"),
                **pairs("c", images="obj_valid_data/{}.png", labels="obj_valid_data/{}.txt"),
                "train.txt": "data/obj_Train_data/a.png\ndata/obj_Train_data/b.png\n",
                "valid.txt": "data/obj_valid_data/c.png\n",
            },
            ["c.png"],
        ),
        # the same without obj.data
        (
            {
                "obj.names": NAMES,
                **pairs("a", "b", images="obj_Train_data/{}.png", labels="obj_Train_data/{}.txt"),
                **pairs(
                    "c", images="obj_Validation_data/{}.png", labels="obj_Validation_data/{}.txt"
                ),
            },
            ["c.png"],
        ),
        # Darknet's own folders
        (
            {
                "data/obj.data": "classes= 2\ntrain  = data/train.txt\nvalid  = data/test.txt\n"
                "names = data/obj.names\n",
                "data/obj.names": NAMES,
                **pairs("a", "b", images="data/obj/{}.png", labels="data/obj/{}.txt"),
                **pairs("c", images="data/obj/{}.png", labels="data/obj/{}.txt"),
                "data/train.txt": "data/obj/a.png\ndata/obj/b.png\n",
                "data/test.txt": "data/obj/c.png\n",
            },
            ["c.png"],
        ),
        # Roboflow's Darknet export
        (
            {
                **pairs("a", "b", images="train/{}.png", labels="train/{}.txt"),
                **pairs("c", images="valid/{}.png", labels="valid/{}.txt"),
                "train/_darknet.labels": NAMES,
                "valid/_darknet.labels": NAMES,
            },
            ["c.png"],
        ),
        # labelImg: beside the images; in a folder of their own; in a folder for each split
        ({**BESIDE, **pairs("a", "b")}, None),
        ({**pairs("a", "b", images="images/{}.png", labels="labels/{}.txt"), **BESIDE}, None),
        (
            {
                **pairs("a", "b", images="train/{}.png", labels="train/{}.txt"),
                **pairs("c", images="val/{}.png", labels="val/{}.txt"),
                "train/classes.txt": NAMES,
                "val/classes.txt": "cat\n",
            },
            ["c.png"],
        ),
        ({**pairs("a", "b"), "predefined_classes.txt": NAMES}, None),
        ({**pairs("a", "b"), **BESIDE, "predefined_classes.txt": "dog\nperson\n"}, None),
        # folders without data.yaml
        ({**SPLIT, **BESIDE}, ["c.png"]),
        ({**SPLIT, "obj.names": NAMES}, ["c.png"]),
        ({**SPLIT, "data/pets.names": NAMES}, ["c.png"]),
        ({**SPLIT, "labels.txt": "cat\r\ndog\r\n\r\n"}, ["c.png"]),
        (
            {
                **pairs("a", "b", images="images/train/{}.png", labels="labels/train/{}.txt"),
                **pairs("c", images="images/val/{}.png", labels="labels/val/{}.txt"),
                "labels/classes.txt": NAMES,
            },
            ["c.png"],
        ),
        (
            {
                **pairs("a", "b", images="Train/Images/{}.png", labels="Train/Labels/{}.txt"),
                **pairs("c", images="Validation/Images/{}.png", labels="Validation/Labels/{}.txt"),
                **BESIDE,
            },
            ["c.png"],
        ),
        # Label Studio
        (
            {
                **pairs("a", "b", images="images/{}.png", labels="labels/{}.txt"),
                **BESIDE,
                "notes.json": json.dumps({"categories": [{"id": 0, "name": "cat"}]}),
            },
            None,
        ),
        (
            {
                **pairs("a", "b", images="images/{}.png", labels="labels/{}.txt"),
                "notes.json": json.dumps(
                    {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]}
                ),
            },
            None,
        ),
        # CVAT "Ultralytics YOLO Detection"
        (
            {
                **pairs("a", "b", images="images/train/{}.png", labels="labels/train/{}.txt"),
                "train.txt": "data/images/train/a.png\ndata/images/train/b.png\n",
                "data.yaml": "path: .\ntrain: train.txt\nnames:\n  0: cat\n  1: dog\n",
            },
            None,
        ),
        # lists beside classes.txt
        (
            {
                **pairs("a", "b", "c", images="images/{}.png", labels="labels/{}.txt"),
                **BESIDE,
                "train.txt": "images/a.png\nimages/b.png\n",
                "val.txt": "images/c.png\n",
            },
            ["c.png"],
        ),
    ],
)
def test_sets_of_other_tools(converted, texts, val):
    report, names = converted(texts)
    assert report.layout.format == "yolo"
    if val:
        assert names == {"train": ["a.png", "b.png"], "val": val}
    else:
        assert sorted(names["train"] + names["val"]) == ["a.png", "b.png"]
    assert not noted(report, "left out")


def test_lists_of_classes_that_differ(folder, tmp_path):
    """labelImg numbers the classes of each folder by themselves."""
    texts = {
        **pairs("a", images="train/{}.png", labels="train/{}.txt"),
        **pairs("b", images="val/{}.png", labels="val/{}.txt"),
        "train/classes.txt": "cat\ndog\n",
        "val/classes.txt": "dog\ncat\n",
    }
    with pytest.raises(BotvisionError, match="in the same order"):
        convert(folder(texts), tmp_path / "out")


def test_missing_images_of_lists_are_all_named(folder, tmp_path):
    """CVAT leaves out the images unless it is told to save them."""
    texts = {**CVAT, "train.txt": "".join(f"data/obj_train_data/{n}.png\n" for n in "ab")}
    texts |= {"obj_train_data/a.txt": LABELS, "obj_train_data/b.txt": LABELS}
    with pytest.raises(BotvisionError) as caught:
        convert(folder(texts), tmp_path / "out")
    for words in ("line 1: expected the image data/obj_train_data/a.png", "line 2"):
        assert words in str(caught.value)


def test_hidden_files_and_leftovers(converted):
    apple = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X names: \xff"
    texts = {**SPLIT, "data.yaml": f"train: train/images\nval: valid/images\n{YAML}"}
    for name in ("._data.yaml", "train/images/._a.png", "train/labels/._a.txt"):
        texts[name] = apple
    texts |= {
        "__MACOSX/train/images/._a.png": apple,
        "train/images/Thumbs.db": apple,
        "train/images/.DS_Store": apple,
        "train/images/.ipynb_checkpoints/a-checkpoint.png": None,
        "train/images/@eaDir/a.png": None,
        "train/labels/.ipynb_checkpoints/a-checkpoint.txt": LABELS,
    }
    report, names = converted(texts)
    assert names == {"train": ["a.png", "b.png"], "val": ["c.png"]}
    assert not noted(report, "left out")


def test_hidden_files_beside_the_labels(converted):
    texts = {**BESIDE, **pairs("a", "b"), "._a.txt": b"\x00\x05", "._a.png": b"\x00\x05"}
    _, names = converted(texts)
    assert sorted(names["train"] + names["val"]) == ["a.png", "b.png"]


@pytest.mark.parametrize("suffix", [".gif", ".jfif", ".ppm", ".webp", ".tif", ".PNG", ".avif"])
def test_every_format_that_is_read(converted, suffix):
    texts = pairs("a", "b", images=f"images/{{}}{suffix}", labels="labels/{}.txt")
    _, names = converted({**texts, "data.yaml": f"train: images\n{YAML}"})
    assert sorted(names["train"] + names["val"]) == [f"a{suffix}", f"b{suffix}"]


def test_formats_that_are_not_read(converted, folder, tmp_path):
    texts = pairs("a", "b", images="images/{}.png", labels="labels/{}.txt")
    texts |= {"images/phone.heic": b"x", "data.yaml": f"train: images\n{YAML}"}
    report, _ = converted(texts)
    assert noted(report, "1 images of a format that is not read", "images/phone.heic")
    root = folder({"labels/phone.txt": LABELS})
    with pytest.raises(BotvisionError, match=r"phone\.heic is of a format that is not read"):
        convert(root, tmp_path / "other")


def test_what_is_in_deeper_folders_is_read(converted):
    texts = pairs("a", images="images/train/{}.png", labels="labels/train/{}.txt")
    texts |= pairs("b", images="images/train/x/y/{}.png", labels="labels/train/x/y/{}.txt")
    texts |= pairs("c", images="images/val/z/{}.png", labels="labels/val/z/{}.txt")
    _, names = converted({**texts, **BESIDE})
    assert names == {"train": ["a.png", "b.png"], "val": ["c.png"]}


def test_what_is_in_no_split_is_counted(converted):
    texts = pairs("a", "b", "c", "d", images="images/{}.png", labels="labels/{}.txt")
    texts["train.txt"] = "images/a.png\nimages/b.png\nimages/a.png\n"
    texts["images/e.png"] = None
    texts["labels/old/f.txt"] = LABELS
    report, names = converted({**texts, "data.yaml": f"train: train.txt\n{YAML}"})
    assert sorted(names["train"] + names["val"]) == ["a.png", "b.png"]
    assert noted(report, "3 images that are in no split: images/c.png, images/d.png, images/e.png")
    assert noted(report, "3 label files that belong to no image of a split", "labels/old/f.txt")
    assert noted(report, "1 of 3 entries name an image again")


def test_images_without_labels_are_counted(converted):
    texts = pairs("a", "b", images="images/{}.png", labels="labels/{}.txt")
    texts |= {"images/c.png": None, "data.yaml": f"train: images\n{YAML}"}
    report, _ = converted(texts, unlabeled=["c.png"])
    assert noted(report, "1 of 3 images have no label file")


def test_files_of_other_kinds_are_no_labels(folder, tmp_path):
    """Text beside images is evidence of YOLO only if it holds the numbers of boxes."""
    root = folder({"a.png": None, "a.txt": "a photo of a cat\n", "b.png": None, "b.txt": "1 2 3\n"})
    with pytest.raises(BotvisionError, match="expected COCO"):
        convert(root, tmp_path / "out")


def test_a_set_without_train(converted):
    report, names = converted({**SPLIT, "data.yaml": f"val: valid/images\n{YAML}"})
    assert names == {"val": ["c.png"]}
    assert noted(report, "there is no train split")


def test_a_second_description_is_noted(converted):
    yaml = "train: train/images\nval: valid/images\n"
    texts = {**SPLIT, "data.yaml": yaml + YAML, "a.yaml": yaml + "names: [x, y]\n"}
    report, _ = converted(texts)
    assert noted(report, "data.yaml is taken", "a.yaml is not read")


def test_a_set_in_a_folder_of_its_own(folder, tmp_path):
    texts = {
        "inner/data.yaml": f"train: images\n{YAML}",
        **pairs("a", images="inner/images/{}.png", labels="inner/labels/{}.txt"),
    }
    with pytest.raises(BotvisionError, match=r"there is .*inner/data\.yaml: give its folder"):
        convert(folder(texts), tmp_path / "out")


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("images/train*", "images/va?"),
        ("images/train*/*.png", "images/val/**/*.png"),
        ("../set/images/tr*", "/content/set/images/val/*"),
        ("[images/train1, 'images/train[2]']", "images/val"),
        ("lists/*.txt", "images/val"),
    ],
)
def test_patterns(train, val, converted):
    texts = {
        "data.yaml": f"train: {train}\nval: {val}\n{YAML}",
        "lists/a.txt": "images/train1/a.png\n",
        "lists/b.txt": "images/train2/b.png\n",
        **pairs("a", images="images/train1/{}.png", labels="labels/train1/{}.txt"),
        **pairs("b", images="images/train2/{}.png", labels="labels/train2/{}.txt"),
        **pairs("c", images="images/val/{}.png", labels="labels/val/{}.txt"),
    }
    report, names = converted(texts)
    assert {split: len(own) for split, own in names.items()} == {"train": 2, "val": 1}
    assert noted(report, "paths") or "matches" not in str(report.notes)


def test_a_pattern_that_matches_nothing_or_all(folder, tmp_path):
    texts = {
        **pairs("a", images="images/train/{}.png", labels="labels/train/{}.txt"),
        **pairs("b", images="images/val/{}.png", labels="labels/val/{}.txt"),
    }
    for pattern in ("none/*", "/elsewhere/train/*", "'**a'"):
        root = folder({**texts, "data.yaml": f"train: {pattern}\nval: images/val\n{YAML}"})
        with pytest.raises(BotvisionError, match="train: expected an image folder or a list"):
            convert(root, tmp_path / "out")


COMMAS = {
    "separators": "0,0.25,0.25,0.5,0.5\n1,0.75,0.5,0.25,0.5\n",
    "and blanks": "0, 0.25, 0.25, 0.5, 0.5\n1, 0.75, 0.5, 0.25, 0.5\n",
    "decimal": "0 0,25 0,25 0,5 0,5\n1 0,75 0,5 0,25 0,5\n",
}


@pytest.mark.parametrize("kind", COMMAS)
def test_labels_with_commas(kind, converted):
    texts = {f"{name}.txt": COMMAS[kind] for name in "abcde"}
    images = {f"{name}.png": None for name in "abcde"}
    report, _ = converted({**texts, **images, "classes.txt": "cat\ndog\n"})
    assert noted(report, "10 lines have commas")


@pytest.mark.parametrize("form", ["beside", "labels", "list"])
def test_upper_case_suffixes(form, converted):
    names = "abcde"
    if form == "beside":
        texts = {f"{name}.PNG": None for name in names} | {f"{n}.TXT": LABELS for n in names}
    else:
        texts = {f"images/{name}.PNG": None for name in names}
        texts |= {f"labels/{name}.TXT": LABELS for name in names}
    if form == "list":
        texts["TRAIN.TXT"] = "".join(f"images/{name}.PNG\n" for name in names[:3])
        texts["VAL.TXT"] = "".join(f"images/{name}.PNG\n" for name in names[3:])
    _, found = converted({**texts, "CLASSES.TXT": "cat\ndog\n"})
    assert sum(map(len, found.values())) == 5
    if form == "list":
        assert len(found["train"]) == 3


@pytest.mark.parametrize("name", ["data.yaml", "animals.yml"])
def test_a_description_one_folder_below_is_named(name, folder, tmp_path):
    texts = {
        f"inner/{name}": f"train: images\n{YAML}",
        **pairs("a", images="inner/images/{}.png", labels="inner/labels/{}.txt"),
    }
    with pytest.raises(BotvisionError, match=rf"there is .*inner/{name}: give its folder"):
        convert(folder(texts), tmp_path / "out")
