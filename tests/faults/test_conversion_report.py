"""Conversions of sets with many faults, with repeated annotations and with nothing left."""

import json

import pytest
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.errors import BotvisionError

BOX = "0 0.5 0.5 0.5 0.5"


@pytest.fixture
def make(tmp_path):
    """A function of label texts that writes a YOLO folder, one image each."""

    def run(*labels):
        folder = tmp_path / "yolo"
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True)
        (folder / "data.yaml").write_text("train: images\nnames: [cat, dog]")
        for number, text in enumerate(labels):
            Image.new("RGB", (40, 20)).save(folder / "images" / f"{number:02}.png")
            if text is not None:
                (folder / "labels" / f"{number:02}.txt").write_text(text)
        return folder

    return run


@pytest.fixture
def faulty(make):
    """A folder of nine images, five of them with six faults."""
    folder = make(BOX, BOX, f"{BOX}\n0 1.5 0.5 0.1 0.1\n\n0 0.1\n", "7 0.5 0.5 0.1 0.1", *[BOX] * 5)
    (folder / "images" / "04.png").write_text("no image")
    (folder / "images" / "05.png").write_bytes(b"")
    (folder / "images" / "06.png").unlink()
    return folder


WORDS = (
    "02.txt: line 2: expected fractions",
    "02.txt: line 4: expected a class",
    "03.txt: line 1: class",
    "04.png: expected an image",
    "05.png: expected an image",
    "06.txt: expected an image 06.*",
)


def test_all_faults_are_named_at_once(faulty, tmp_path, tree):
    before = tree(tmp_path)
    with pytest.raises(BotvisionError, match="6 faults") as caught:
        convert(faulty, tmp_path / "out")
    lines = str(caught.value).split("\n")
    assert len(lines) == 1 + len(WORDS)
    for word in WORDS:
        assert sum(word in line for line in lines) == 1
    assert tree(tmp_path) == before


def test_many_faults_are_counted(make, tmp_path):
    folder = make(*["7 0.5 0.5 0.1 0.1"] * 30)
    with pytest.raises(BotvisionError, match="and 10 more") as caught:
        convert(folder, tmp_path / "out")
    assert len(str(caught.value).split("\n")) == 1 + 20 + 1


def test_bad_images_are_left_out_if_asked(faulty, tmp_path, tree):
    before = tree(faulty)
    report = convert(faulty, tmp_path / "out", skip_bad=True)
    assert tree(faulty) == before
    assert sum(report.images.values()) == 4
    assert report.images_left_out == 5
    assert len(report.faults) == 6
    assert report.total == 4
    for word in WORDS:
        assert any(word in fault for fault in report.faults)


def test_the_command_lists_what_is_left_out(faulty, tmp_path, cli):
    status, _, error = cli("data", "convert", faulty, tmp_path / "out")
    assert status == 2
    assert not (tmp_path / "out").exists()
    assert all(word in error for word in WORDS)
    status, out, error = cli("data", "convert", faulty, tmp_path / "out", "--skip-bad")
    assert (status, error) == (0, "")
    assert all(word in out for word in WORDS)
    assert "left out: 5 of 9 images" in out


def test_a_split_of_which_nothing_is_left(make, tmp_path):
    folder = make(BOX, BOX, "7 0.5 0.5 0.1 0.1")
    (folder / "val.txt").write_text("images/02.png")
    (folder / "train.txt").write_text("images/00.png\nimages/01.png")
    (folder / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat]")
    report = convert(folder, tmp_path / "out", skip_bad=True)
    assert report.images == {"train": 1, "val": 1}
    assert any("val: no image is left" in note for note in report.notes)


POLYGON = "1 0.1 0.1 0.5 0.1 0.5 0.6 0.2 0.9"


def test_repeated_lines_are_left_out(make, tmp_path):
    once = f"{BOX}\n{POLYGON}\n"
    other = "0 0.500000 5e-1 0.5 0.50\n1 0.5 0.5 0.5 0.5\n1 0.3 0.5 0.4 0.8\n"
    report = convert(make(once * 2, once + other + BOX), tmp_path / "out")
    assert sum(report.instances.values()) == 2 + 4
    assert report.skipped == {"the same as another of its image": 2 + 2}
    assert report.total == 10


def test_repeated_annotations_of_coco(tmp_path):
    folder = tmp_path / "coco"
    folder.mkdir()
    annotations = []
    for number in range(2):
        Image.new("RGB", (40, 20)).save(folder / f"{number}.png")
        same = {"bbox": [1.0, 2.001, 3, 4.0], "segmentation": []}
        for category, extra in ((1, {}), (1, {}), (2, {}), (1, same)):
            record = {"id": len(annotations), "image_id": number, "category_id": category}
            annotations.append(record | {"bbox": [1, 2, 3, 4], "iscrowd": 0} | extra)
    content = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(2)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    report = convert(folder, tmp_path / "out")
    assert report.skipped == {"the same as another of its image": 4}
    assert report.per_class == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((None, None), ["no instance is left in 2 images", "2 of 2 images have no label file"]),
        (("", ""), ["no instance is left in 2 images", "no annotations"]),
        (("0 0.5 0.5 0 0", "0 0.5 0.5 0 0.1"), ["2 annotations left out: box without area"]),
    ],
)
def test_nothing_is_left(make, tmp_path, labels, words):
    with pytest.raises(BotvisionError) as caught:
        convert(make(*labels), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for word in words:
        assert word in str(caught.value)


def test_only_crowds_are_left(tmp_path):
    folder = tmp_path / "coco"
    folder.mkdir()
    Image.new("RGB", (40, 20)).save(folder / "a.png")
    crowd = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [crowd],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=r"no instance is left .*1 annotations are crowds"):
        convert(folder, tmp_path / "out")


def test_all_images_are_bad(make, tmp_path):
    with pytest.raises(BotvisionError, match=r"2 images left out, the first for: .*00\.txt"):
        convert(make("7 1 1 1 1", "7 1 1 1 1"), tmp_path / "out", skip_bad=True)


def test_boxes_without_outlines_are_noted(make, tmp_path):
    report = convert(make(BOX, f"{BOX}\n{POLYGON}"), tmp_path / "out")
    assert any(note.startswith("2 of 3 instances have no outline") for note in report.notes)
    (tmp_path / "yolo" / "labels" / "00.txt").write_text(POLYGON)
    (tmp_path / "yolo" / "labels" / "01.txt").write_text(POLYGON)
    report = convert(tmp_path / "yolo", tmp_path / "other")
    assert not any("no outline" in note for note in report.notes)


@pytest.mark.parametrize("encoding", ["gb18030", "latin-1"])
def test_text_of_another_encoding(make, tmp_path, encoding):
    folder = make(BOX, BOX)
    name = "名" if encoding == "gb18030" else "ü"
    (folder / "data.yaml").write_text(f"train: images\nnames: [{name}]", encoding=encoding)
    with pytest.raises(BotvisionError, match=r"data\.yaml: expected UTF-8 .*iconv"):
        convert(folder, tmp_path / "out")
