"""Pascal VOC as tools write it: folders, lists, what boxes count from, and what is left out."""

import json

import pytest
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.errors import BotvisionError

BOX = (11, 9, 50, 38)


def xml(name="p0.png", *boxes, head="", extra=""):
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        "<object><name>card</name>"
        f"<bndbox>{''.join(f'<{s}>{v}</{s}>' for s, v in zip(sides, box, strict=True))}</bndbox>"
        f"{extra}</object>"
        for box in boxes or (BOX,)
    )
    size = "<size><width>120</width><height>80</height></size>"
    return f"<annotation><filename>{name}</filename>{head}{size}{objects}</annotation>"


@pytest.fixture
def make(tmp_path):
    """A function of texts by path, and of images' paths, that gives a folder."""

    def run(texts, images):
        folder = tmp_path / "voc"
        for name in images:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (120, 80)).save(path)
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return run


@pytest.fixture
def converted(tmp_path):
    """A function that converts a folder and gives the report and each image's boxes."""

    def run(folder, **options):
        out = tmp_path / "out"
        report = convert(folder, out, **{"val_fraction": 0.5, **options})
        boxes = {}
        for path in (out / "annotations").iterdir():
            content = json.loads(path.read_text())
            names = {each["id"]: each["file_name"].rpartition("/")[2] for each in content["images"]}
            boxes |= {name: [] for name in names.values()}
            for each in content["annotations"]:
                boxes[names[each["image_id"]]].append(each["bbox"])
        return report, boxes

    return run


# name: (folders of the XML files, folders of their images)
FOLDERS = {
    "the development kit's": (("Annotations", "Annotations"), ("JPEGImages", "JPEGImages")),
    "Kaggle's": (("annotations", "annotations"), ("images", "images")),
    "Label Studio's": (("Annotations", "Annotations"), ("images", "images")),
    "in subfolders": (("Annotations/a", "Annotations/b"), ("JPEGImages/a", "JPEGImages/b")),
    "some in subfolders": (("Annotations", "Annotations/deep/er"), ("JPEGImages", "JPEGImages")),
    "beside the images": ((".", "."), (".", ".")),
    "beside, in folders": (("x/y", "z"), ("x/y", "z")),
    "of another name": (("labels_xml", "labels_xml"), ("pics", "pics")),
    "a folder per split": (
        ("train/annotations", "valid/annotations"),
        ("train/images", "valid/images"),
    ),
    "splits below": (("annotations/train", "annotations/val"), ("images/train", "images/val")),
    "several years": (
        ("VOC2007/Annotations", "VOC2012/Annotations"),
        ("VOC2007/JPEGImages", "VOC2012/JPEGImages"),
    ),
}


@pytest.mark.parametrize(("places", "images"), FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("suffix", ["xml", "XML"])
def test_folders(make, converted, places, images, suffix):
    texts = {f"{place}/p{i}.{suffix}": xml(f"p{i}.png") for i, place in enumerate(places)}
    folder = make(texts, [f"{place}/p{i}.png" for i, place in enumerate(images)])
    # A Mac's twins are no XML, and no images.
    for path in list(folder.rglob("p*")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    _, boxes = converted(folder)
    assert boxes == {"p0.png": [[10, 8, 40, 30]], "p1.png": [[10, 8, 40, 30]]}


def test_images_of_one_name_in_two_folders(make, converted, tmp_path):
    texts = {
        f"Annotations/{place}/p.xml": xml("p.png", box)
        for place, box in (("a", BOX), ("b", (21, 9, 50, 38)))
    }
    folder = make(texts, ["JPEGImages/a/p.png", "JPEGImages/b/p.png"])
    Image.new("RGB", (120, 80), "red").save(folder / "JPEGImages/b/p.png")
    report, _ = converted(folder)
    assert report.images == {"train": 1, "val": 1}
    for path in (tmp_path / "out" / "images").rglob("*.png"):
        red = Image.open(path).getpixel((0, 0)) == (255, 0, 0)
        content = json.loads((tmp_path / f"out/annotations/instances_{path.parent.name}.json")
                             .read_text())  # fmt: skip
        assert content["annotations"][0]["bbox"][0] == (20 if red else 10)


@pytest.mark.parametrize(
    "written",
    ["p0.png", "C:\\photos\\p0.png", "/home/me/photos/p0.png", "P0.PNG", "p0", "old.png", "",
     "images/p0.png", "p1.png"],
)  # fmt: skip
def test_names_of_other_computers(make, converted, written):
    folder = make(
        {"Annotations/p0.xml": xml(written), "Annotations/p1.xml": xml("p1.png", (21, 9, 50, 38))},
        ["JPEGImages/p0.png", "JPEGImages/p1.png"],
    )
    report, boxes = converted(folder)
    assert boxes == {"p0.png": [[10, 8, 40, 30]], "p1.png": [[20, 8, 30, 30]]}
    renamed = any("another image than that of their own name" in note for note in report.notes)
    assert renamed == (written in ("old.png", "p1.png"))


def test_two_files_of_one_image(make, converted):
    folder = make(
        {"a.xml": xml("p0.png"), "p0.xml": xml(), "p1.xml": xml("p1.png")}, ["p0.png", "p1.png"]
    )
    with pytest.raises(BotvisionError, match=r"p0\.xml: filename: expected an image of its own"):
        converted(folder)


def test_what_is_left_out_is_noted(make, converted):
    names = [f"p{i}" for i in range(6)]
    folder = make(
        {f"Annotations/{name}.xml": xml(f"{name}.png") for name in names}
        | {
            "ImageSets/Main/train.txt": "p0  1\r\np1 -1\r\n\r\n",
            "ImageSets/Main/val.txt": "\ufeffp2.png\np3\np3\n",
        },
        [f"JPEGImages/{name}.png" for name in [*names, "p6", "p7", "p8"]],
    )
    report, boxes = converted(folder)
    assert report.images == {"train": 2, "val": 2}
    assert sorted(boxes) == ["p0.png", "p1.png", "p2.png", "p3.png"]
    notes = "\n".join(report.notes)
    assert "2 XML files in no list of the splits: Annotations/p4.xml, Annotations/p5.xml" in notes
    assert "3 images without an XML file: JPEGImages/p6.png" in notes
    assert "1 lines repeat others" in notes


# name: lists by path
LISTS = {
    "the development kit's": {"Main/trainval.txt": "a b\nc d\n", "Main/val.txt": "c d\n"},
    "CVAT's": {"Main/Train.txt": "a b\n", "Main/Validation.txt": "c d\n"},
    "of segmentation": {"Segmentation/train.txt": "a b\n", "Segmentation/val.txt": "c d\n"},
    "in the folder itself": {"train.txt": "JPEGImages/a b.png\n", "val.txt": "JPEGImages/c d.png"},
    "Windows'": {"Main/train.txt": ".\\Annotations\\a b.xml\r\n", "Main/val.txt": "x\\c d.png\r\n"},
    "with flags": {"train.txt": "a b  1\n", "test.txt": "c d -1\n"},
}


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
def test_lists(make, converted, lists):
    folder = make(
        {f"Annotations/{name}.xml": xml(f"{name}.png") for name in ("a b", "c d")}
        | {f"ImageSets/{name}": text for name, text in lists.items()},
        ["JPEGImages/a b.png", "JPEGImages/c d.png"],
    )
    report, _ = converted(folder)
    assert report.images == {"train": 1, "val": 1}
    assert not any("no val split" in note and "chosen" in note for note in report.notes)


# name: (boxes, what stands in the head, whether the boxes count from 0)
ORIGINS = {
    "no zero": ([(10, 8, 20, 18), (1, 1, 120, 80)], "", False),
    "a zero": ([(10, 8, 20, 18), (0, 30, 12, 42)], "", True),
    "CVAT's zero": ([("10.0", "8.0", "20.0", "18.0"), ("40.0", "0.0", "52.0", "42.0")], "", True),
    "a few fractions": ([(10, 8, 20, 18), (3.25, 30.5, 12, 42)], "", False),
    "fractions": ([(10, 8, 20, 18), *[(3.25, 30.5, 12, 42)] * 3], "", True),
    "CVAT without a zero": ([("10.0", "8.0", "20.0", "18.0")] * 3, "", True),
    "Roboflow": (
        [(10, 8, 20, 18)],
        "<source><database>roboflow.com</database></source>",
        True,
    ),
}


@pytest.mark.parametrize(("boxes", "head", "from_zero"), ORIGINS.values(), ids=ORIGINS)
def test_what_boxes_count_from(make, converted, boxes, head, from_zero):
    # The evidence of one file is that of all.
    folder = make(
        {"p0.xml": xml("p0.png", *boxes, head=head), "p1.xml": xml("p1.png", (10, 8, 20, 18))},
        ["p0.png", "p1.png"],
    )
    report, found = converted(folder)
    assert found["p1.png"] == [[10, 8, 10, 10] if from_zero else [9, 7, 11, 11]]
    assert found["p0.png"][0] == found["p1.png"][0]
    said = f"boxes are taken as counted from {0 if from_zero else 1}"
    assert sum(said in note for note in report.notes) == 1
    assert report.clipped == 0


@pytest.mark.parametrize(("origin", "box"), [(0, [0, 8, 20, 10]), (1, [0, 7, 20, 11])])
def test_what_boxes_count_from_may_be_given(make, converted, origin, box):
    folder = make(
        {f"p{i}.xml": xml(f"p{i}.png", (0, 8, 20, 18)) for i in range(2)}, ["p0.png", "p1.png"]
    )
    report, found = converted(folder, voc_from=origin)
    assert found["p0.png"] == [box]
    assert not any("counted from" in note for note in report.notes)


def test_polygons_count_as_boxes_do(make, converted, tmp_path):
    points = "<polygon><x1>0</x1><y1>8</y1><x2>20</x2><y2>8</y2><x3>20</x3><y3>18</y3></polygon>"
    folder = make(
        {f"p{i}.xml": xml(f"p{i}.png", (0, 8, 20, 18), extra=points) for i in range(2)},
        ["p0.png", "p1.png"],
    )
    converted(folder)
    content = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert content["annotations"][0]["segmentation"] == [[0, 8, 20, 8, 20, 18]]
    assert content["annotations"][0]["area"] == 100


def test_rotated_boxes(make, converted, tmp_path):
    """roLabelImg's."""
    box = "<cx>60</cx><cy>40</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle>"
    text = f"<annotation><object><name>a</name><robndbox>{box}</robndbox></object></annotation>"
    folder = make({"p0.xml": text, "p1.xml": text}, ["p0.png", "p1.png"])
    _, boxes = converted(folder, voc_from=0)
    assert boxes["p0.png"][0] == pytest.approx([55, 30, 10, 20])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "cannot be read as XML"),
        (b"<annotation><object>", "cannot be read as XML"),
        (xml("\u56fe\u50cf").encode("gb18030"), "iconv -f gb18030 -t utf-8"),
        (b"<other/>", "expected an annotation element, got 'other'"),
    ],
)
def test_a_damaged_file_is_not_lost(make, converted, tree, text, words):
    folder = make(
        {"Annotations/p0.xml": xml(), "Annotations/p1.xml": text},
        ["JPEGImages/p0.png", "JPEGImages/p1.png"],
    )
    with pytest.raises(BotvisionError, match=words) as caught:
        converted(folder)
    assert "p1.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(make, converted, encoding):
    folder = make({"p0.xml": xml().encode(encoding), "p1.xml": xml("p1.png")}, ["p0.png", "p1.png"])
    assert sorted(converted(folder)[1]) == ["p0.png", "p1.png"]


@pytest.mark.parametrize("encoding", ["gb2312", "gb18030", "Shift_JIS", "ISO-8859-15", "cp1251"])
def test_declared_encodings(make, converted, encoding):
    """Those of several bytes per character are unknown to the parser."""
    name = {"ISO-8859-15": "œuf", "cp1251": "яйцо"}.get(encoding, "卵")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{xml()}'.replace("card", name)
    folder = make({"p0.xml": text.encode(encoding), "p1.xml": xml("p1.png")}, ["p0.png", "p1.png"])
    assert name in converted(folder)[0].per_class


def test_all_faults_at_once_or_left_out(make, converted):
    folder = make(
        {f"p{i}.xml": xml(f"p{i}.png", ("x", 1, 5, "y") if i < 2 else BOX) for i in range(5)},
        [f"p{i}.png" for i in range(4)],
    )
    with pytest.raises(BotvisionError) as caught:
        converted(folder)
    for name in ("p0.xml: object 1: xmin", "p1.xml: object 1: xmin", "p4.xml: filename"):
        assert name in str(caught.value)
    report, boxes = converted(folder, skip_bad=True)
    assert sorted(boxes) == ["p2.png", "p3.png"]
    assert report.images_left_out == 3


def test_an_image_of_a_format_that_is_not_read(make, converted):
    folder = make({"a.xml": xml("a.heic"), "b.xml": xml("b.png"), "a.heic": "x"}, ["b.png"])
    with pytest.raises(BotvisionError, match=r"a\.heic is of a format that is not read"):
        converted(folder)


def test_lists_of_several_folders(make, converted):
    texts = {f"xml/{place}/p{i}.xml": xml(f"p{i}.png") for i, place in enumerate("aab")}
    folder = make(
        texts | {"train.txt": "p0\np1\n", "val.txt": "p2\n"},
        [f"images/{place}/p{i}.png" for i, place in enumerate("aab")],
    )
    assert converted(folder)[0].images == {"train": 2, "val": 1}


def test_lists_of_other_files(make, converted):
    texts = {f"Annotations/{name}.xml": xml(f"{name}.png") for name in ("a", "b")}
    folder = make(texts | {"ImageSets/Main/train.txt": "x\n"}, ["images/a.png", "images/b.png"])
    report, _ = converted(folder)
    assert any("train.txt: no line names an XML file" in note for note in report.notes)


def test_a_folder_given_in_another_way(make, converted, monkeypatch, tmp_path):
    texts = {f"labels/{name}.xml": xml(f"..\\images\\{name}.png") for name in ("a", "b")}
    folder = make(texts, ["images/a.png", "images/b.png"])
    monkeypatch.chdir(folder)
    assert sorted(converted(folder / ".." / "voc" / ".")[1]) == ["a.png", "b.png"]
    assert convert(".", "../out2", val_fraction=0.5).images == {"train": 1, "val": 1}


@pytest.mark.parametrize("origin", [0, 1])
def test_swapped_corners(origin, make, converted):
    boxes = [(50, 38, 11, 9), (50, 9, 11, 38), (11, 38, 50, 9), BOX, (20, 20, 19, 19)]
    images = ["p0.png", "p1.png", "p2.png", "p3.png", "p4.png"]
    texts = {f"p{number}.xml": xml(f"p{number}.png", box) for number, box in enumerate(boxes)}
    report, found = converted(make(texts, images), voc_from=origin)
    expected = [[11 - origin, 9 - origin, 39 + origin, 29 + origin]]
    assert [found[f"p{number}.png"] for number in range(4)] == [expected] * 4
    assert "3 boxes have xmin over xmax or ymin over ymax: their corners are swapped" in "\n".join(
        report.notes
    )
    assert report.skipped == {"box without area": 1}
    assert found["p4.png"] == []


PET = "Abyssinian_{} 1 1 1\n"


def pets(make, *, boxes):
    lines = "".join(PET.format(number) for number in range(4))
    texts = {f"annotations/{name}.txt": lines for name in ("list", "trainval")}
    images = [f"images/Abyssinian_{number}.jpg" for number in range(4)]
    images += [f"annotations/trimaps/Abyssinian_{number}.png" for number in range(4)]
    if boxes:
        texts |= {
            f"annotations/xmls/Abyssinian_{number}.xml": xml(f"Abyssinian_{number}.jpg")
            for number in range(4)
        }
    return make(texts, images)


def test_oxford_pets(make, converted):
    report, found = converted(pets(make, boxes=True))
    assert found == {f"Abyssinian_{number}.jpg": [[10, 8, 40, 30]] for number in range(4)}
    notes = "\n".join(report.notes)
    assert "left out: 4 masks of pet, border and background (trimaps)" in notes
    assert "not the breeds of Oxford-IIIT Pet's list.txt" in notes


def test_oxford_pets_without_boxes(make, tmp_path):
    with pytest.raises(BotvisionError, match=r"list\.txt is a list of Oxford-IIIT Pet: sort its"):
        convert(pets(make, boxes=False), tmp_path / "out")
