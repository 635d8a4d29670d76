"""Annotations of formats that are not read are refused in one line: what they are, the way out."""

import json

import pytest
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.datasets.layouts import find_coco_split
from botvision.errors import BotvisionError

FORMATS = {
    "CVAT for images": (
        "annotations.xml",
        ('<?xml version="1.0"?><annotations><version>1.1</version><image id="0" name="a.png"/>'
        "</annotations>"),
        "CVAT for images XML: export as COCO 1.0",
    ),
    "CVAT for images in a folder of annotations": (
        "annotations/default.xml",
        '<annotations><version>1.1</version><meta/><track id="0"/></annotations>',
        "CVAT for images XML: export as COCO 1.0",
    ),
    "LabelMe": (
        "Annotations/a.xml",
        ("<annotation><filename>a.png</filename><object><name>cat</name><polygon><pt><x>1</x>"
        "<y>2</y></pt></polygon></object></annotation>"),
        "LabelMe XML: write it as COCO",
    ),
    "dlib": ("train.xml", "<dataset><images></images></dataset>", "dlib XML"),
    "CVAT backup": (
        "annotations.json", [{"version": 0, "tags": [], "shapes": [], "tracks": []}],
        "CVAT backup: export as COCO 1.0",
    ),
    "VIA": (
        "via_region_data.json", {"a.png1": {"filename": "a.png", "regions": [
            {"shape_attributes": {"name": "rect"}, "region_attributes": {}}]}},
        "VIA JSON: export as COCO",
    ),
    "VIA project": (
        "via_project.json", {"_via_settings": {}, "_via_img_metadata": {}},
        "VIA JSON: export as COCO",
    ),
    "VIA CSV": (
        "via.csv",
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes\n",
        "VIA CSV: export as COCO",
    ),
    "boxes in a CSV": (
        "labels.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,cat,1,2,3,4\n",
        "CSV table: write it as COCO, YOLO or Pascal VOC",
    ),
    "Open Images": ("boxes.csv", "ImageID,Source,LabelName,XMin\n", "Open Images CSV"),
    "run lengths": ("train.csv", "ImageId,EncodedPixels\na,1 2\n", "CSV of run lengths"),
    "TFRecord": ("train.tfrecord", "\0\1", "TFRecord: export as COCO"),
    "TFRecord in shards": ("x.tfrecord-00000-of-00002", "\0\1", "TFRecord: export as COCO"),
    "LMDB": ("train/data.mdb", "\0\1", "LMDB: export as COCO"),
    "Parquet": ("data/train-00000.parquet", "PAR1", "Parquet or Arrow: export as COCO"),
    "Label Studio": (
        "export.json",
        [{"id": 1, "annotations": [{"completed_by": 1, "result": []}], "data": {"image": "a"}}],
        "Label Studio's own JSON: export as COCO",
    ),
    "Label Studio, short": (
        "export.json", [{"image": "/data/a.png", "label": [{"rectanglelabels": ["cat"]}]}],
        "Label Studio's own JSON: export as COCO",
    ),
    "Supervisely": (
        "ds0/ann/a.png.json", {"size": {}, "objects": [{"classTitle": "cat"}]},
        "Supervisely JSON: export as COCO",
    ),
    "Datumaro": (
        "annotations/default.json",
        {"dm_format_version": "1.0", "info": {}, "categories": {}, "items": []},
        "Datumaro JSON: export as COCO",
    ),
    "CreateML": (
        "_annotations.createml.json",
        [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}],
        "CreateML JSON: export as COCO",
    ),
    "VoTT": ("a-asset.json", {"asset": {"name": "a.png"}, "regions": []}, "VoTT JSON"),
    "Labelbox": ("export.ndjson", {"data_row": {"id": "x"}}, "Labelbox JSON: export as COCO"),
    "BDD100K": ("det.json", [{"name": "a", "labels": [{"box2d": {}}]}], "BDD100K JSON"),
    "Cityscapes": ("a_polygons.json", {"imgHeight": 30, "objects": []}, "Cityscapes JSON"),
    "captions": (
        "annotations/captions_train2017.json",
        {"images": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]},
        "use instances_*.json instead",
    ),
    "results": (
        "predictions.json", [{"image_id": 1, "category_id": 1, "bbox": [], "score": 0.5}],
        "predictions; use the annotation file",
    ),
    "COCO without classes": (
        "annotations.json", {"images": [], "annotations": []}, "has no categories of COCO",
    ),
    "DOTA": ("labelTxt/a.txt", "1 2 3 4 5 6 7 8 plane 0\n", "DOTA text"),
    "KITTI": (
        "label_2/a.txt", "Car 0.0 0 -1.5 599 156 629 189 2.8 1.4 3.6 0.4 1.5 69.4 -1.5\n", "KITTI",
    ),
    "an archive": ("set.zip", "PK", "an archive: unpack it"),
    "masks of classes": ("SegmentationClass/a.png", None, "a mask of classes"),
    "nothing but images": ("b.png", None, "images but no annotations"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_that_is_not_read(tmp_path, tree, name):
    file, content, words = FORMATS[name]
    root = tmp_path / "set"
    images = "images" if file != "b.png" else "."
    for path in (root / images / "a.png", root / file):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("RGB", (40, 30)).save(path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    before = tree(tmp_path)
    for ask in (lambda: convert(root, tmp_path / "out"), lambda: find_coco_split(root, "train")):
        with pytest.raises(BotvisionError) as caught:
            ask()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_the_folder_of_an_archive(tmp_path):
    """An archive has often one folder of its own name inside."""
    inner = tmp_path / "set" / "set" / "v2"
    (inner / "annotations").mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": []}
    (inner / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match=r"set/set has a COCO layout .* name that folder"):
        convert(tmp_path / "set", tmp_path / "out")


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(BotvisionError, match="expected a data folder, got a file"):
        convert(tmp_path / "set.zip", tmp_path / "out")
