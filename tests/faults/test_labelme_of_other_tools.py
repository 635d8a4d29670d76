"""labelme's newer shapes, reserved labels, and images that were renamed, moved or embedded."""

import base64
import io
import json
import math

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.errors import BotvisionError

BOX = {"label": "card", "points": [[10, 8], [50, 38]], "shape_type": "rectangle"}


def png(pixels, mode="L"):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8), "L").convert(mode).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def make(tmp_path):
    """A function of shapes that gives a folder of two images with them, or of files by path."""

    def run(*shapes, files=(("p0.json", "p0.png"), ("p1.json", "p1.png")), **content):
        folder = tmp_path / "labelme"
        for label, image in files:
            for name in filter(None, (label, image)):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if image:
                Image.new("RGB", (120, 80)).save(folder / image)
            whole = {
                "version": "5.5.0",
                "shapes": list(shapes) or [BOX],
                "imagePath": (image or label).rpartition("/")[2],
                "imageHeight": 80,
                "imageWidth": 120,
                "imageData": None,
            }
            if label:
                (folder / label).write_text(json.dumps(whole | content))
        return folder

    return run


@pytest.fixture
def converted(tmp_path):
    """A function that converts a folder and gives the report and the first image's records."""

    def run(folder, **options):
        out = tmp_path / "out"
        report = convert(folder, out, **{"val_fraction": 0.5, **options})
        content = json.loads((out / "annotations" / "instances_val.json").read_text())
        names = {each["id"]: each["name"] for each in content["categories"]}
        first = content["images"][0]["id"]
        return report, [
            {**each, "name": names[each["category_id"]]}
            for each in content["annotations"]
            if each["image_id"] == first
        ]

    return run


def shape(kind, *points, **fields):
    return {"label": "ball", "points": list(points), "shape_type": kind, "flags": {}, **fields}


def test_a_circle(make, converted):
    _, (record,) = converted(make(shape("circle", [60, 40], [70, 40])))
    assert record["bbox"] == [50, 30, 20, 20]
    assert record["area"] == pytest.approx(math.pi * 100, rel=0.02)
    (polygon,) = record["segmentation"]
    assert all(
        math.hypot(x - 60, y - 40) == pytest.approx(10)
        for x, y in zip(polygon[::2], polygon[1::2], strict=True)
    )


def test_a_circle_at_the_edge(make, converted):
    report, (record,) = converted(make(shape("circle", [3, 40], [6, 44])))
    assert record["bbox"] == [0, 35, 8, 10]
    assert report.clipped == 2


CORNERS = ([60, 20], [80, 30], [75, 40], [55, 30])


@pytest.mark.parametrize(
    "kind", ["rotation", "oriented_rectangle", "quadrilateral", "polygon", "ai_polygon", None, ""]
)
def test_polygons_by_other_names(make, converted, kind):
    report, (record,) = converted(make(shape(kind, *CORNERS, direction=0.46)))
    assert record["bbox"] == [55, 20, 25, 20]
    assert record["segmentation"] == [[60, 20, 80, 30, 75, 40, 55, 30]]
    assert not report.skipped


@pytest.mark.parametrize("corners", [[[10, 8], [50, 38]], [[50, 38], [10, 8]],
                                     [[10, 8], [50, 8], [50, 38], [10, 38]]])  # fmt: skip
def test_rectangles(make, converted, corners):
    _, (record,) = converted(make(shape("rectangle", *corners)))
    assert record["bbox"] == [10, 8, 40, 30]
    assert "segmentation" not in record


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB"])
@pytest.mark.parametrize("kind", ["mask", "ai_mask"])
def test_a_mask(make, converted, mode, kind):
    pixels = np.zeros((11, 21))
    pixels[2:, :15] = 255
    _, (record,) = converted(make(shape(kind, [80, 60], [100, 70], mask=png(pixels, mode))))
    assert record["bbox"] == [80, 62, 15, 9]
    assert record["area"] == 15 * 9
    drawn = coco_mask.decode(record["segmentation"])
    assert drawn.shape == (80, 120)
    assert drawn[62:71, 80:95].all()


@pytest.mark.parametrize(
    ("corner", "box"), [((-5, -3), [0, 0, 16, 8]), ((110, 75), [110, 75, 10, 5])]
)
def test_a_mask_that_reaches_out(make, converted, corner, box):
    mask = png(np.full((11, 21), 255))
    _, (record,) = converted(make(shape("mask", corner, (130, 90), mask=mask)))
    assert record["bbox"] == box


def test_a_mask_and_a_polygon_of_one_group(make, converted):
    mask = shape("mask", [80, 60], [100, 70], mask=png(np.full((11, 21), 255)), group_id=1)
    _, (record,) = converted(make(mask, shape("rectangle", [0, 0], [10, 10], group_id=1)))
    assert record["bbox"] == [0, 0, 101, 71]
    assert record["area"] == pytest.approx(21 * 11 + 100, abs=21)


def test_reserved_labels_and_what_is_no_region(make, converted):
    triangle = [[5, 60], [20, 60], [20, 75]]
    report, records = converted(
        make(
            BOX,
            shape("polygon", *triangle, label="__ignore__"),
            shape("polygon", *triangle, label="_background_"),
            shape("line", [1, 1], [50, 60], label="wire"),
            shape("linestrip", [1, 1], [50, 60], [60, 60], label="wire"),
            shape("point", [5, 5]),
            shape("points", [5, 5], [6, 6]),
            shape("cuboid", *CORNERS, *CORNERS),
        )
    )
    assert [each["name"] for each in records] == ["card"]
    assert report.per_class == {"card": 2}
    assert report.skipped == {
        "label __ignore__": 2,
        "label _background_": 2,
        **{f"shape of type '{kind}'": 2
           for kind in ("line", "linestrip", "point", "points", "cuboid")},
    }  # fmt: skip
    assert report.total == 16


def test_nothing_but_lines(make, converted):
    with pytest.raises(BotvisionError, match=r"no class and no instance .*shape of type 'line'"):
        converted(make(shape("line", [1, 1], [50, 60])))


@pytest.mark.parametrize("fields", [{"difficult": True}, {"flags": {"difficult": True}}])
def test_difficult_shapes_are_crowds(make, converted, fields):
    _, records = converted(make(BOX, {**BOX, "points": [[60, 40], [90, 70]], **fields}))
    assert [each["iscrowd"] for each in records] == [0, 1]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (shape("circle", [60, 40]), "center and a point on it, got 1 points"),
        (shape("mask", [1, 1], [5, 5]), "mask: expected a PNG file in base64, got None"),
        (shape("mask", [1, 1], [5, 5], mask="AB*="), "mask: expected base64"),
        (shape("mask", [1, 1], [5, 5], mask="AAAA"), "mask: expected an image"),
        (shape("mask", mask=png([[255]])), "2 corners of the mask"),
    ],
)
def test_faulty_shapes(make, converted, record, words):
    with pytest.raises(BotvisionError, match=words) as caught:
        converted(make(BOX, record))
    assert "p0.json: shape 2" in str(caught.value)
    assert "p1.json: shape 2" in str(caught.value)


def test_deeper_folders_and_hidden_twins(make, converted):
    files = [(f"{place}p{i}.json", f"{place}p{i}.png")
             for i, place in enumerate(("", "", "a/", "a/b/", "a/b/c/"))]  # fmt: skip
    folder = make(files=files)
    for name in ("._p0.json", "__MACOSX/._p0.json", ".ipynb_checkpoints/p0-checkpoint.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    report, _ = converted(folder)
    assert sum(report.images.values()) == 5
    assert report.notes[0].startswith("there is no val split")


def test_labels_and_images_apart(make, converted):
    files = [("train/labels/a.json", "train/images/a.png"),
             ("val/labels/a.json", "val/images/a.png")]  # fmt: skip
    report, records = converted(make(files=files))
    assert report.images == {"train": 1, "val": 1}
    assert len(records) == 1


@pytest.mark.parametrize(
    "path",
    ["IMG_0.png", "C:\\Users\\me\\p0.png", "..\\images\\p0.png", "/home/me/p0.png", "p1.png",
     "../../p0.png", "", None],
)  # fmt: skip
def test_the_image_of_the_files_own_name(make, converted, path, tmp_path):
    folder = make()
    content = json.loads((folder / "p0.json").read_text())
    (folder / "p0.json").write_text(json.dumps(content | {"imagePath": path}))
    report, _ = converted(folder)
    assert sum(report.images.values()) == 2
    renamed = any("own name, which is taken" in note for note in report.notes)
    assert renamed == (path in ("IMG_0.png", "p1.png"))


def test_an_image_of_another_name(make, converted):
    folder = make()
    (folder / "p0.json").rename(folder / "labels of p0.json")
    report, _ = converted(folder)
    assert sum(report.images.values()) == 2


def test_images_without_a_file_are_noted(make, converted):
    files = [("p0.json", "p0.png"), ("p1.json", "p1.png"), (None, "p2.png"), (None, "x/p3.png")]
    report, _ = converted(make(files=files))
    assert "left out: 2 images without a JSON file: p2.png, x/p3.png" in report.notes


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("path", ["gone.jpg", None])
@pytest.mark.parametrize("link", [False, True])
def test_embedded_images(make, converted, tmp_path, kind, path, link):
    file = io.BytesIO()
    Image.new("RGB", (120, 80), "red").save(file, kind)
    text = base64.b64encode(file.getvalue()).decode()
    folder = make(files=[("p0.json", ""), ("p1.json", "")], imageData=text, imagePath=path)
    report, (record,) = converted(folder, link=link)
    assert record["bbox"] == [10, 8, 40, 30]
    assert any("2 images are taken from their JSON files" in note for note in report.notes)
    written = sorted((tmp_path / "out" / "images").rglob("*.*"))
    suffix = {"PNG": ".png", "JPEG": ".jpg"}[kind]
    assert sorted(path.name for path in written) == [f"p0{suffix}", f"p1{suffix}"]
    assert all(path.read_bytes() == file.getvalue() for path in written)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "imagePath: expected an image"),
        ("%%%", "imageData: expected base64"),
        ("AAAA", "imageData: expected an image"),
    ],
)
def test_embedded_images_that_are_none(make, converted, data, words):
    folder = make(files=[("p0.json", ""), ("p1.json", "p1.png")], imageData=data)
    with pytest.raises(BotvisionError, match=words) as caught:
        converted(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(make, converted, encoding):
    folder = make({**BOX, "label": "\u732b"})
    path = folder / "p0.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert converted(folder)[0].per_class == {"\u732b": 2}


def test_other_encodings(make, converted):
    folder = make({**BOX, "label": "\u56fe\u50cf"})
    path = folder / "p0.json"
    text = json.dumps(json.loads(path.read_text()), ensure_ascii=False)
    path.write_bytes(text.encode("gb18030"))
    with pytest.raises(
        BotvisionError, match=r"p0\.json: expected UTF-8 .*iconv -f gb18030 -t utf-8"
    ):
        converted(folder)


def test_sorted_keys(make, converted):
    """Where imageData comes before shapes."""
    folder = make()
    for name in ("p0.json", "p1.json"):
        content = json.loads((folder / name).read_text()) | {"imageData": "A" * 2**21}
        (folder / name).write_text(json.dumps(content, sort_keys=True))
    assert sum(converted(folder)[0].images.values()) == 2
