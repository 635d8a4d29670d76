"""The benchmark of annotations: the file it writes, and its figures on next to nothing."""

import json
import sys

import pytest
from pycocotools.coco import COCO

from botvision.datasets.coco.file import read_annotations

# pycocotools' own, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
READERS = ["botvision, first time", "botvision, cached", "pycocotools", "faster-coco-eval"]


@pytest.fixture(scope="module")
def data(module):
    return module("data")


@pytest.fixture(scope="module")
def path(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "a.json"
    data.write_annotation_file(path, images=300, instances=20_500)
    return path


def test_the_file_is_like_coco(path):
    content = json.loads(path.read_text())
    assert len(content["images"]) == 300
    assert len(content["categories"]) == 80
    ids = [record["id"] for record in content["annotations"]]
    assert len(ids) == len(set(ids)) == 20_500
    crowds = [record for record in content["annotations"] if record["iscrowd"]]
    assert 100 < len(crowds) < 500
    # COCO's train2017 has 448 MB for 860,001 instances in 118,287 images.
    assert 480 < path.stat().st_size / 20_500 < 560
    assert not read_annotations(path).skipped


def test_the_same_seed_writes_the_same_file(data, path, tmp_path):
    data.write_annotation_file(tmp_path / "again.json", images=300, instances=20_500)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("reader", READERS)
def test_readers_give_the_same_records(data, path, reader, capsys):
    opened = data.open_with(reader, path)
    coco = COCO(path)
    assert opened.images == 300
    ids = coco.getImgIds()
    for index in (0, 7, 299):
        expected = coco.imgToAnns[ids[index]]
        found = opened.records(index)
        assert [each["id"] for each in found] == [each["id"] for each in expected]
        for mine, truth in zip(found[:20], expected, strict=False):
            assert (opened.mask(index, mine) == coco.annToMask(truth)).all()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for shared memory")
def test_a_report(script):
    arguments = ("--images", 100, "--instances", 500, "--num-workers", 1, "--rounds", 1)
    status, out, error = script("data", *arguments, "--json")
    assert status == 0, error
    report = json.loads(out)
    assert report["failures"] == {}
    assert list(report["readers"]) == READERS
    for reader in report["readers"].values():
        assert reader["open_seconds"] > 0
        assert reader["memory_bytes"] > 50 * 2**20  # torch alone
        assert 0 < reader["item_seconds"] <= reader["slow_item_seconds"]
        assert reader["mask_seconds"] > 0
