"""COCO written in other formats by this file, converted, and compared with what it was."""

import json
import math
import warnings

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.errors import BotvisionError

NAMES = ["cat", "dog", "traffic light"]


def ignore(what, done, total):
    pass


@pytest.fixture
def reader():
    """Supervision's data set, which warns when it is imported without OpenCV."""
    with warnings.catch_warnings(action="ignore"):
        from supervision import DetectionDataset
    return DetectionDataset


@pytest.fixture
def truth():
    """A function that draws images by split: {"name", "size", "objects": [(class, polygon)]}."""

    def draw(seed, **counts):
        rng = np.random.default_rng(seed)
        splits = {}
        for split, count in counts.items():
            splits[split] = []
            for number in range(count):
                size = tuple(int(side) for side in rng.integers(20, 90, 2))
                objects = []
                for _ in range(0 if number == 1 else rng.integers(1, 5)):
                    low = rng.uniform(0, 0.6, 2)
                    points = low + rng.uniform(0.02, 0.4, (int(rng.integers(3, 9)), 2))
                    polygon = points * size
                    objects.append((int(rng.integers(len(NAMES))), polygon.ravel().tolist()))
                splits[split].append(
                    {"name": f"{split} {number}.png", "size": size, "objects": objects}
                )
        return splits

    return draw


def corners(polygon):
    return min(polygon[::2]), min(polygon[1::2]), max(polygon[::2]), max(polygon[1::2])


def save_image(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    ).save(path)


def write_yolo(folder, splits, *, polygons, names=NAMES):
    folder.mkdir()
    for split, images in splits.items():
        (folder / split / "labels").mkdir(parents=True)
        for image in images:
            save_image(folder / split / "images" / image["name"], image["size"])
            w, h = image["size"]
            lines = []
            for category, polygon in image["objects"]:
                if polygons:
                    numbers = [v / (w, h)[i % 2] for i, v in enumerate(polygon)]
                else:
                    x1, y1, x2, y2 = corners(polygon)
                    numbers = [(x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h]
                lines.append(" ".join([str(category), *(f"{v:.6f}" for v in numbers)]))
            if lines:
                name = image["name"].replace(".png", ".txt")
                (folder / split / "labels" / name).write_text("\n".join(lines))
    entries = [f"{split}: ../{split}/images" for split in splits]
    (folder / "data.yaml").write_text("\n".join([*entries, f"names: {json.dumps(names)}"]))
    return folder


def voc_object(category, x1, y1, x2, y2, extra=""):
    """Pixels from 1, the last one included."""
    return (
        f"<object><name>{NAMES[category]}</name>{extra}<bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
    )


def write_voc_xml(folder, image, objects):
    w, h = image["size"]
    save_image(folder / "JPEGImages" / image["name"], image["size"])
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / image["name"].replace(".png", ".xml")).write_text(
        f"<annotation><filename>{image['name']}</filename><size><width>{w}</width>"
        f"<height>{h}</height><depth>3</depth></size>{''.join(objects)}</annotation>"
    )


def write_voc(folder, splits):
    """Boxes of whole pixels around the polygons, as VOC has them."""
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for split, images in splits.items():
        for image in images:
            image["name"] = image["name"].replace(" ", "_")  # VOC's lists have no spaces
            boxes = [
                (c, *map(math.floor, corners(p)[:2]), *map(math.ceil, corners(p)[2:]))
                for c, p in image["objects"]
            ]
            image["boxes"] = [box[1:] for box in boxes]
            write_voc_xml(folder, image, [voc_object(*box) for box in boxes])
        names = [image["name"].removesuffix(".png") for image in images]
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return folder


def write_labelme(folder, splits, *, rectangles=False):
    for split, images in splits.items():
        for image in images:
            w, h = image["size"]
            save_image(folder / split / image["name"], image["size"])
            shapes = []
            for category, polygon in image["objects"]:
                points = np.reshape(corners(polygon) if rectangles else polygon, (-1, 2)).tolist()
                kind = "rectangle" if rectangles else "polygon"
                # A rectangle may be drawn from any of its corners.
                ordered = points[::-1] if rectangles else points
                shapes.append(
                    {"label": NAMES[category], "points": ordered, "shape_type": kind, "flags": {}}
                )
            content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": "AAAA"}
            content |= {"imagePath": image["name"], "imageHeight": h, "imageWidth": w}
            path = folder / split / image["name"].replace(".png", ".json")
            path.write_text(json.dumps(content))
    return folder


def read_back(out, splits, names):
    """Instances of each image of a converted folder: (class name, box, polygons)."""
    found = {}
    for split in splits:
        content = json.loads((out / "annotations" / f"instances_{split}.json").read_text())
        names_by_id = {each["id"]: each["name"] for each in content["categories"]}
        assert set(names_by_id.values()) <= set(names)
        assert len({each["id"] for each in content["annotations"]}) == len(content["annotations"])
        images = {each["id"]: each for each in content["images"]}
        assert len(images) == len(content["images"])
        for image in images.values():
            with Image.open(out / "images" / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"])
            found[image["file_name"]] = []
        for each in content["annotations"]:
            name = images[each["image_id"]]["file_name"]
            found[name].append(
                (names_by_id[each["category_id"]], each["bbox"], each.get("segmentation"))
            )
    return found


def check(found, splits, *, boxes, polygons, tolerance):
    images = {f"{s}/{p['name']}": p for s, own in splits.items() for p in own}
    assert found.keys() == images.keys()
    for name, image in images.items():
        assert [each[0] for each in found[name]] == [NAMES[c] for c, _ in image["objects"]]
        wanted = boxes(image)
        for (_, box, segmentation), (x1, y1, x2, y2), (_, polygon) in zip(
            found[name], wanted, image["objects"], strict=True
        ):
            np.testing.assert_allclose(box, [x1, y1, x2 - x1, y2 - y1], atol=tolerance, rtol=0)
            if polygons:
                (got,) = segmentation
                np.testing.assert_allclose(got, polygon, atol=tolerance, rtol=0)
            else:
                assert segmentation is None


def polygon_boxes(image):
    return [corners(polygon) for _, polygon in image["objects"]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("polygons", [False, True], ids=["boxes", "polygons"])
def test_yolo(tmp_path, truth, tree, seed, polygons):
    splits = truth(seed, train=4, val=3)
    folder = write_yolo(tmp_path / "yolo", splits, polygons=polygons)
    before = tree(folder)
    report = convert(folder, tmp_path / "out", progress=ignore)
    assert tree(folder) == before
    found = read_back(tmp_path / "out", splits, NAMES)
    # Six decimals of sides below 90 pixels; a box's corner is of two such numbers.
    check(found, splits, boxes=polygon_boxes, polygons=polygons, tolerance=90 * 1e-6)
    assert report.images == {"train": 4, "val": 3}
    assert report.empty_images == 2
    assert sum(report.per_class.values()) == report.total == sum(map(len, found.values()))
    assert any("../train/images is taken as train/images" in note for note in report.notes)
    # Class indices are the ids.
    content = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())
    assert content["categories"] == [{"id": i, "name": name} for i, name in enumerate(NAMES)]


def test_yolo_boxes_are_supervisions(tmp_path, truth, reader):
    splits = truth(7, train=5, val=2)
    folder = write_yolo(tmp_path / "yolo", splits, polygons=False)
    convert(folder, tmp_path / "out", progress=ignore)
    theirs = reader.from_yolo(
        str(folder / "train" / "images"),
        str(folder / "train" / "labels"),
        str(folder / "data.yaml"),
    )
    check_supervision(tmp_path / "out", theirs, "train", tolerance=1e-3)


def check_supervision(out, theirs, split, *, tolerance):
    ours = read_back(out, [split], NAMES)
    assert len(theirs) == len(ours)
    for path, _, detections in theirs:
        mine = ours[f"{split}/{path.rpartition('/')[2]}"]
        assert [theirs.classes[c] for c in detections.class_id] == [name for name, _, _ in mine]
        boxes = np.reshape([box for _, box, _ in mine], (-1, 4))
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(np.reshape(detections.xyxy, (-1, 4)), boxes, atol=tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_voc(tmp_path, truth, tree, seed):
    splits = truth(seed, train=4, val=3)
    folder = write_voc(tmp_path / "voc", splits)
    before = tree(folder)
    convert(folder, tmp_path / "out", progress=ignore)
    assert tree(folder) == before
    found = read_back(tmp_path / "out", splits, NAMES)
    check(found, splits, boxes=lambda p: p["boxes"], polygons=False, tolerance=0)


def test_voc_boxes_are_supervisions(tmp_path, truth, reader):
    splits = truth(3, train=4)
    folder = write_voc(tmp_path / "voc", splits)
    # Whole, since supervision knows no lists of splits.
    convert(folder, tmp_path / "out", val_fraction=0.25, progress=ignore)
    theirs = reader.from_pascal_voc(str(folder / "JPEGImages"), str(folder / "Annotations"))
    ours = read_back(tmp_path / "out", ["train", "val"], NAMES)
    boxes = {name.rpartition("/")[2]: [box for _, box, _ in own] for name, own in ours.items()}
    for path, _, detections in theirs:
        mine = np.reshape(boxes[path.rpartition("/")[2]], (-1, 4))
        mine[:, 2:] += mine[:, :2]
        np.testing.assert_array_equal(np.reshape(detections.xyxy, (-1, 4)), mine)


@pytest.mark.parametrize("rectangles", [False, True])
def test_labelme(tmp_path, truth, tree, rectangles):
    splits = truth(5, train=4, val=3)
    folder = write_labelme(tmp_path / "labelme", splits, rectangles=rectangles)
    before = tree(folder)
    convert(folder, tmp_path / "out", progress=ignore)
    assert tree(folder) == before
    found = read_back(tmp_path / "out", splits, NAMES)
    check(found, splits, boxes=polygon_boxes, polygons=not rectangles, tolerance=1e-9)
    # The image, not imageData.
    for split, images in splits.items():
        for image in images:
            copied = tmp_path / "out" / "images" / split / image["name"]
            assert copied.read_bytes() == (folder / split / image["name"]).read_bytes()


def test_voc_masks(tmp_path):
    """The number of a pixel is the object's place in the file; 255 is the border."""
    numbers = np.zeros((20, 30), np.uint8)
    numbers[2:8, 3:9] = 1
    numbers[10:18, 12:25] = 2
    numbers[10, 12:25] = 255
    folder = tmp_path / "voc"
    folder.mkdir()
    photo = {"name": "a.png", "size": (30, 20)}
    difficult = "<difficult>1</difficult>"
    objects = [voc_object(1, 3, 2, 9, 8), voc_object(0, 12, 10, 25, 18, difficult)]
    write_voc_xml(folder, photo, objects)
    write_voc_xml(folder, {"name": "b.png", "size": (30, 20)}, objects[:1])
    (folder / "SegmentationObject").mkdir()
    mask = Image.fromarray(numbers, mode=None).convert("P")
    mask.putdata(numbers.ravel().tolist())
    mask.save(folder / "SegmentationObject" / "a.png")
    convert(folder, tmp_path / "out", val_fraction=0.5, progress=ignore)
    annotations = {}
    for split in ("train", "val"):
        content = json.loads((tmp_path / "out" / f"annotations/instances_{split}.json").read_text())
        (image,) = content["images"]
        annotations[image["file_name"].rpartition("/")[2]] = content["annotations"]
    first, second = annotations["a.png"]
    for number, each in ((1, first), (2, second)):
        np.testing.assert_array_equal(coco_mask.decode(each["segmentation"]), numbers == number)
        assert each["area"] == (numbers == number).sum()
    assert first["bbox"] == [3, 2, 6, 6]
    assert second["bbox"] == [12, 10, 13, 8]
    assert (first["iscrowd"], second["iscrowd"]) == (0, 1)
    assert "segmentation" not in annotations["b.png"][0]


def test_voc_polygons(tmp_path):
    """Roboflow's masks: points that count from 1 as boxes do, several polygons an object."""
    folder = tmp_path / "voc"
    folder.mkdir()
    points = "<polygon><x1>4.5</x1><y1>3</y1><x2>9</x2><y2>3</y2><x3>9</x3><y3>8</y3></polygon>"
    for name in ("a.png", "b.png"):
        write_voc_xml(
            folder, {"name": name, "size": (30, 20)}, [voc_object(1, 3, 2, 9, 8, points * 2)]
        )
    convert(folder, tmp_path / "out", progress=ignore)
    for own in read_back(tmp_path / "out", ["train", "val"], NAMES).values():
        ((_, _, segmentation),) = own
        assert segmentation == [[3.5, 2, 8, 2, 8, 7]] * 2


def test_labelme_groups_and_other_shapes(tmp_path):
    shapes = [
        {
            "label": "cat",
            "points": [[1, 1], [5, 1], [5, 5]],
            "group_id": 1,
            "shape_type": "polygon",
        },
        {"label": "cat", "points": [[9, 9], [12, 12]], "group_id": 1, "shape_type": "rectangle"},
        {
            "label": "dog",
            "points": [[2, 2], [4, 2], [4, 6]],
            "group_id": 1,
            "shape_type": "polygon",
        },
        {"label": "dog", "points": [[2, 2], [4, 4]], "shape_type": "line"},
        {"label": "dog", "points": [[2, 2]], "shape_type": "point"},
        {"label": "dog", "points": [[2, 2], [4, 4]], "shape_type": "polygon"},
        {"label": "dog", "points": [[50, 50], [60, 60]], "shape_type": "rectangle"},
        {"label": "dog", "points": [[25, 15], [40, 18]], "shape_type": "rectangle"},
    ]
    for name in ("a", "b"):
        save_image(tmp_path / "in" / f"{name}.png", (30, 20))
        content = {"shapes": shapes, "imagePath": f"..\\old folder\\{name}.png"}
        (tmp_path / "in" / f"{name}.json").write_text(json.dumps(content))
    report = convert(tmp_path / "in", tmp_path / "out", progress=ignore)
    for own in read_back(tmp_path / "out", ["train", "val"], NAMES).values():
        assert own == [
            ("cat", [1, 1, 11, 11], [[1, 1, 5, 1, 5, 5], [9, 9, 12, 9, 12, 12, 9, 12]]),
            ("dog", [2, 2, 2, 4], [[2, 2, 4, 2, 4, 6]]),
            ("dog", [25, 15, 5, 3], None),
        ]
    assert report.skipped == {
        "shape of type 'line'": 2,
        "shape of type 'point'": 2,
        "polygon of fewer than 3 points": 2,
        "box outside the image": 2,
    }
    assert report.total == 6 + 8
    assert report.clipped == 2


@pytest.mark.parametrize("orientation", [1, 4, 5, 8])
def test_sizes_are_those_of_upright_images(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = tmp_path / "yolo"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (40, 20)).save(folder / "images" / f"{name}.jpg", exif=exif)
        (folder / "labels" / f"{name}.txt").write_text("0 0.25 0.5 0.5 1")
    (folder / "classes.txt").write_text("cat\n")
    convert(folder, tmp_path / "out", progress=ignore)
    content = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())
    size = (20, 40) if orientation > 4 else (40, 20)
    (image,) = content["images"]
    (annotation,) = content["annotations"]
    assert (image["width"], image["height"]) == size
    assert annotation["bbox"] == [0, 0, size[0] / 2, size[1]]


def test_coco_keeps_its_records(tmp_path, write_coco, tree):
    """Roboflow's form of a folder becomes ours; ids and unknown fields stay."""
    images = [{"id": 30 + i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in range(5)]
    annotations = [
        {"image_id": 30 + i, "category_id": c, "bbox": [0, 4.5, 1, 5.5], "iscrowd": 0, "mine": c,
         "segmentation": {"size": [10, 20], "counts": [5, 5, 190]}}
        for i, c in enumerate([1, 5, 90, 90])
    ]  # fmt: skip
    annotations.append({"image_id": 999, "category_id": 1, "bbox": [0, 0, 1, 1]})
    made = write_coco(images, annotations)
    folder = tmp_path / "roboflow"
    (made / "images").rename(folder)
    (made / "annotations" / "instances_train.json").rename(folder / "_annotations.coco.json")
    before = tree(folder)
    report = convert(folder, tmp_path / "out", val_fraction=0.4, seed=3, progress=ignore)
    assert tree(folder) == before
    assert report.images == {"train": 3, "val": 2}
    assert report.skipped == {"image_id without an image": 1}
    assert report.total == 5
    found = {}
    for split in ("train", "val"):
        content = json.loads((tmp_path / "out" / f"annotations/instances_{split}.json").read_text())
        assert [each["id"] for each in content["categories"]] == [90, 1, 5]
        for each in content["annotations"]:
            found[each["image_id"]] = {k: v for k, v in each.items() if k != "id"}
    assert found == {each["image_id"]: each for each in annotations[:4]}


def test_the_result_can_be_trained_on(tmp_path, truth):
    from botvision.datasets.coco.dataset import CocoInstances

    splits = truth(1, train=3, val=2)
    folder = write_yolo(tmp_path / "yolo", splits, polygons=True)
    convert(folder, tmp_path / "out", progress=ignore)
    data = CocoInstances(tmp_path / "out", "train")
    for index, image in enumerate(splits["train"]):
        _, target = data[0, index]
        assert len(target["boxes"]) == len(image["objects"])


def test_splitting_is_reproducible(tmp_path, truth):
    folder = write_yolo(tmp_path / "yolo", truth(2, train=10), polygons=False)
    names = []
    for number, seed in enumerate((0, 0, 1)):
        report = convert(folder, tmp_path / f"out{number}", seed=seed, progress=ignore)
        assert report.images == {"train": 8, "val": 2}
        assert any("no val split: 2 of the 10" in note for note in report.notes)
        own = {
            split: sorted(p.name for p in (tmp_path / f"out{number}" / "images" / split).iterdir())
            for split in ("train", "val")
        }
        assert sorted(own["train"] + own["val"]) == sorted(f"train {i}.png" for i in range(10))
        names.append(own)
    assert names[0] == names[1] != names[2]


def test_test_is_taken_as_val(tmp_path, truth):
    folder = write_yolo(tmp_path / "yolo", truth(2, train=2, test=3), polygons=False)
    report = convert(folder, tmp_path / "out", progress=ignore)
    assert report.images == {"train": 2, "val": 3}
    assert "there is no val split: test is taken as val" in report.notes


def test_links(tmp_path, truth):
    folder = write_yolo(tmp_path / "yolo", truth(2, train=2, val=2), polygons=False)
    convert(folder, tmp_path / "linked", link=True, progress=ignore)
    convert(folder, tmp_path / "copied", progress=ignore)
    source = (folder / "train" / "images" / "train 0.png").stat()
    assert (tmp_path / "linked" / "images" / "train" / "train 0.png").stat().st_ino == source.st_ino
    assert (tmp_path / "copied" / "images" / "train" / "train 0.png").stat().st_ino != source.st_ino


def test_images_of_one_name(tmp_path):
    folder = tmp_path / "yolo"
    for place, shade in (("a", 1), ("b", 2)):
        for kind in ("images", "labels"):
            (folder / place / kind).mkdir(parents=True)
        Image.new("L", (9, 9), shade).save(folder / place / "images" / "x.png")
        (folder / place / "labels" / "x.txt").write_text("0 0.5 0.5 0.5 0.5")
    (folder / "data.yaml").write_text("train: [a/images, b/images]\nval: a/images\nnames: {0: cat}")
    convert(folder, tmp_path / "out", progress=ignore)
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    names = [each["file_name"] for each in content["images"]]
    shades = [Image.open(tmp_path / "out" / "images" / name).getpixel((0, 0)) for name in names]
    assert names == ["train/x.png", "train/x_2.png"]
    assert shades == [1, 2]


def test_the_result_is_not_written_into_the_source(tmp_path, truth, tree):
    folder = write_yolo(tmp_path / "yolo", truth(2, train=2, val=2), polygons=False)
    for out, message in ((folder / "coco", "outside"), (tmp_path, "already exists")):
        before = tree(tmp_path)
        with pytest.raises(BotvisionError, match=message):
            convert(folder, out, progress=ignore)
        assert tree(tmp_path) == before
