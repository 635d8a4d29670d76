"""Data sets of other formats that are not as they should be: one line, and nothing is written."""

import json

import pytest
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.errors import BotvisionError


@pytest.fixture
def refused(tmp_path, tree):
    """A function that expects a folder to be refused in one line with these words."""

    def expect(folder, *words):
        before = tree(tmp_path)
        with pytest.raises(BotvisionError) as caught:
            convert(folder, tmp_path / "out", progress=lambda *now: None)
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert str(word) in message, message
        assert tree(tmp_path) == before

    return expect


@pytest.fixture
def yolo(tmp_path):
    """A function of a line of labels and of data.yaml that gives a folder of two images."""

    def make(line="1 0.5 0.5 0.5 0.5", yaml="train: images\nnames: [cat, dog]\n"):
        folder = tmp_path / "yolo"
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (40, 30)).save(folder / "images" / f"{name}.png")
        (folder / "labels" / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
        (folder / "data.yaml").write_text(yaml)
        return folder

    return make


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 0.5 0.5 0.5", ["4 fields"]),
        ("1 0.5 0.5 0.5 0.5 0.9", ["6 fields"]),
        ("1 0.1 0.1 0.5 0.5 0.9 0.9 0.3", ["8 fields"]),
        ("2 0.5 0.5 0.5 0.5", ["class", "0 to 1", "got 2"]),
        ("-1 0.5 0.5 0.5 0.5", ["class", "got -1"]),
        ("0.5 0.5 0.5 0.5 0.5", ["class", "got 0.5"]),
        ("nan 0.5 0.5 0.5 0.5", ["class"]),
        ("cat 0.5 0.5 0.5 0.5", ["expected numbers", "cat"]),
        ("1 0.5 0.5 1.5 0.5", ["0 to 1", "got 1.5"]),
        ("1 0.5 -0.1 0.5 0.5", ["0 to 1", "got -0.1"]),
        ("1 nan 0.5 0.5 0.5", ["0 to 1", "got nan"]),
        ("1 12 10 30 20", ["0 to 1", "got 12"]),
    ],
)
def test_yolo_lines(refused, yolo, line, words):
    refused(yolo(line), "a.txt: line 3:", *words)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("train: images\n", ["names: expected the classes' names"]),
        ("train: images\nnames: []", ["names: expected the classes' names"]),
        ("train: images\nnames: {a: cat}", ["names: expected names by index"]),
        ("train: images\nnames: [cat, dog]\nnc: 3", ["nc: expected 2", "got 3"]),
        ("names: [cat, dog]", ["train and val"]),
        ("train: absent\nnames: [cat, dog]", ["train: expected an image folder", "absent"]),
        ("train: ../../etc\nnames: [cat, dog]", ["train: expected a path inside"]),
        ("train: /etc\nnames: [cat, dog]", ["train: expected a path inside", "/etc"]),
        ("train: labels\nnames: [cat, dog]", ["train: expected images, got none"]),
        ("train: [images\nnames: x", ["line 2", "not YAML"]),
        ("- train", ["expected names, train and val"]),
        ("train: images\nnames: !!python/object/apply:os.system ['touch evil']", ["not YAML"]),
        ("train: images\nnames: [cat, dog]\nkpt_shape: many", ["kpt_shape", "many"]),
    ],
)
def test_yolo_descriptions(refused, yolo, yaml, words):
    refused(yolo(yaml=yaml), "data.yaml", *words)


def test_yolo_lists_that_lead_out(refused, yolo, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    folder = yolo(yaml="train: train.txt\nnames: [cat, dog]")
    for line in ("../other.png", str(tmp_path / "other.png")):
        (folder / "train.txt").write_text(f"./images/a.png\n{line}\n")
        refused(folder, "expected a path inside", "other.png")
    (folder / "train.txt").write_text("./images/a.png\n./images/none.png\n")
    refused(folder, "expected the image", "none.png")


def test_a_yolo_image_that_is_missing(refused, yolo):
    folder = yolo()
    (folder / "images" / "a.png").unlink()
    refused(folder, folder / "labels" / "a.txt", "expected an image a.*")


@pytest.mark.parametrize("part", ["images/a.png", "labels/a.txt", "images", "labels"])
def test_links_out_of_the_folder(refused, yolo, tmp_path, part):
    folder = yolo()
    outside = tmp_path / "outside"
    (folder / part).rename(outside)
    (folder / part).symlink_to(outside)
    refused(folder, "expected a path inside", folder)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n"


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n", EPS])
def test_what_is_no_image(refused, yolo, content):
    folder = yolo()
    (folder / "images" / "a.png").write_bytes(content)
    refused(folder, folder / "images" / "a.png", "expected an image")


def test_one_image_cannot_be_split(refused, yolo):
    folder = yolo()
    (folder / "images" / "b.png").unlink()
    refused(folder, "got 1 in all")


def box(x1=2, y1=3, x2=9, y2=8):
    return f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"


CAT = f"<name>cat</name>{box()}"


@pytest.fixture
def voc(tmp_path):
    """A function of an object's and a head's XML that gives a folder of that and a sound image."""

    def make(content=CAT, head="<filename>a.png</filename>", text=None):
        folder = tmp_path / "voc"
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (folder / name).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (40, 30)).save(folder / "JPEGImages" / f"{name}.png")
            parts = (head, content) if name == "a" else ("", CAT)
            whole = f"<annotation>{parts[0]}<object>{parts[1]}</object></annotation>"
            path = folder / "Annotations" / f"{name}.xml"
            path.write_text(text if text and name == "a" else whole)
        (folder / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
        return folder

    return make


BOMB = (
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
    "<annotation><filename>&b;</filename></annotation>"
)
OUTSIDE = (
    '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    "<annotation><filename>&a;</filename></annotation>"
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"content": box()}, ["object 1", "name", "got none"]),
        ({"content": "<name>cat</name>"}, ["object 1", "xmin", "expected a number"]),
        ({"content": "<name>cat</name>" + box(y2="tall")}, ["object 1", "ymax", "'tall'"]),
        ({"content": "<name>cat</name>" + box(x1="nan")}, ["object 1", "xmin", "'nan'"]),
        (
            {"content": CAT + "<polygon><x1>1</x1><y1>2</y1></polygon>"},
            ["object 1", "polygon", "3 points"],
        ),
        (
            {"head": "<size><width>30</width><height>40</height></size>"},
            ["size", "expected 40 x 30", "got 30 x 40"],
        ),
        ({"text": "<annotation><object>"}, ["cannot be read as XML"]),
        ({"text": "<other/>"}, ["expected an annotation", "'other'"]),
        ({"text": BOMB}, ["cannot be read as XML", "EntitiesForbidden"]),
        ({"text": OUTSIDE}, ["cannot be read as XML", "EntitiesForbidden"]),
    ],
)
def test_voc_files(refused, voc, changes, words):
    refused(voc(**changes), "a.xml", *words)


def test_a_voc_list(refused, voc):
    folder = voc()
    path = folder / "ImageSets" / "Main" / "train.txt"
    path.write_text("a\nnone\n")
    refused(folder, f"{path}: line 2", "none.xml")
    path.write_text("a\n../../../etc/x\n")
    refused(folder, f"{path}: line 2", "../../etc/x.xml, got no such file")


def test_a_voc_image_that_is_missing(refused, voc):
    folder = voc(head="<filename>c.png</filename>")
    (folder / "JPEGImages" / "a.png").unlink()
    refused(folder, "a.xml", "filename", "expected an image")


@pytest.mark.parametrize(
    ("mode", "size", "value", "words"),
    [
        ("L", (30, 40), 1, ["expected 40 x 30"]),
        ("L", (40, 30), 2, ["1 objects", "got 2"]),
        ("RGB", (40, 30), (1, 1, 1), ["palette", "RGB"]),
    ],
)
def test_voc_masks(refused, voc, mode, size, value, words):
    folder = voc()
    (folder / "SegmentationObject").mkdir()
    path = folder / "SegmentationObject" / "a.png"
    Image.new(mode, size, value).save(path)
    refused(folder, path, *words)


SHAPE = {"label": "cat", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"}


@pytest.fixture
def labelme(tmp_path):
    """A function of what differs in a shape and in its file that gives it and a sound file."""

    def make(shape=None, **content):
        folder = tmp_path / "labelme"
        folder.mkdir()
        for name in ("a", "b"):
            Image.new("RGB", (40, 30)).save(folder / f"{name}.png")
            whole = {"shapes": [SHAPE], "imagePath": f"{name}.png"}
            if name == "a":
                whole["shapes"].append({**SHAPE, **(shape or {})})
                whole |= content
            (folder / f"{name}.json").write_text(json.dumps(whole))
        return folder

    return make


@pytest.mark.parametrize(
    ("shape", "content", "words"),
    [
        ({"points": [[1, 1], [2]]}, {}, ["shape 2", "points", "pairs"]),
        ({"points": "all"}, {}, ["shape 2", "points"]),
        ({"points": [[1, 1], [2, "3"], [4, 5]]}, {}, ["shape 2", "points"]),
        ({"points": [[1, 1], [float("nan"), 3], [4, 5]]}, {}, ["shape 2", "finite"]),
        ({"points": [[1, 1], [10**400, 3], [4, 5]]}, {}, ["shape 2", "finite"]),
        ({"points": [[1, 1]], "shape_type": "rectangle"}, {}, ["shape 2", "2 corners"]),
        ({"label": None}, {}, ["shape 2", "label"]),
        ({"group_id": [1]}, {}, ["shape 2", "group_id"]),
        (None, {"shapes": {}}, ["shapes: expected a list"]),
        (None, {"shapes": [1]}, ["shape 1", "expected an object"]),
        (None, {"imagePath": [1]}, ["imagePath", "got [1]"]),
        (None, {"imageWidth": 30}, ["imageWidth", "expected 40", "got 30"]),
    ],
)
def test_labelme_files(refused, labelme, shape, content, words):
    refused(labelme(shape, **content), "a.json", *words)


@pytest.mark.parametrize("named", [None, "none.png", "../../none.png", "/etc/passwd", "b.png"])
def test_a_labelme_image_that_is_missing(refused, labelme, named):
    folder = labelme(imagePath=named)
    (folder / "a.png").unlink()
    refused(folder, "a.json", "imagePath", "expected an image", named or "''")


def test_a_labelme_file_that_is_cut_off(refused, labelme):
    folder = labelme()
    path = folder / "a.json"
    path.write_text(path.read_text()[:60])
    refused(folder, path, "not JSON at offset")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("images", {}, ["images: expected a list"]),
        ("images", [{"id": 1}], ["images[0]", "file_name"]),
        ("images", [{"id": 1, "file_name": "../x.png"}], ["image 1", "inside"]),
        ("images", [{"id": 1, "file_name": "none.png"}], ["image 1", "none.png"]),
        ("images", [{"id": 1, "file_name": "a.png", "width": 4, "height": 30}], ["got 4 x 30"]),
        ("images", [{"id": 1, "file_name": "a.png"}] * 2, ["id 1 occurs twice"]),
        ("categories", None, ["categories: expected a list"]),
        ("annotations", [{"image_id": 1, "category_id": 7, "bbox": []}], ["category_id", "7"]),
        ("annotations", [1], ["annotations[0]"]),
    ],
)
def test_coco_files(refused, tmp_path, key, value, words):
    folder = tmp_path / "coco"
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    content = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": []}
    path = folder / "_annotations.coco.json"
    path.write_text(json.dumps(content | {key: value}))
    refused(folder, path, *words)
