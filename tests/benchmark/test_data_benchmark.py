"""The benchmark of annotations: the file it writes, and its figures on next to nothing."""

import json
import sys
from dataclasses import asdict

import pytest
from pycocotools.coco import COCO

from botvision.benchmark import annotation_readers
from botvision.benchmark.annotation_file import write_annotation_file
from botvision.benchmark.data_benchmark import DataSettings, benchmark_data
from botvision.datasets.coco.annotations import read_annotations

# pycocotools' own, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "a.json"
    write_annotation_file(path, images=300, instances=20_500)
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


def test_all_of_the_file_is_sound(path):
    annotations = read_annotations(path)
    assert not annotations.skipped
    assert sum(map(len, annotations.instances.values())) == 20_500


def test_the_same_seed_writes_the_same_file(path, tmp_path):
    write_annotation_file(tmp_path / "again.json", images=300, instances=20_500)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("reader", annotation_readers.READERS)
def test_readers_give_the_same_records(path, reader, capsys):
    opened = annotation_readers.READERS[reader](path)
    coco = COCO(path)
    assert opened.images == 300
    ids = coco.getImgIds()
    for place in (0, 7, 299):
        expected = coco.imgToAnns[ids[place]]
        found = opened.records(place)
        assert [each["id"] for each in found] == [each["id"] for each in expected]
        for mine, truth in zip(found[:20], expected, strict=False):
            assert (opened.mask(place, mine) == coco.annToMask(truth)).all()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for shared memory")
def test_a_report(tmp_path):
    notes = []
    settings = DataSettings(images=100, instances=500, num_workers=1, rounds=1)
    report = benchmark_data(settings, tmp_path, progress=notes.append)
    assert [reader.name for reader in report.readers] == list(annotation_readers.READERS)
    for reader in report.readers:
        assert reader.unavailable is None
        assert reader.open_seconds > 0
        assert reader.memory_bytes > 50 * 2**20  # torch alone
        assert 0 < reader.item_seconds <= reader.slow_item_seconds
        assert reader.mask_seconds > 0
    assert (
        json.loads(json.dumps(asdict(report), allow_nan=False))["file_bytes"] == report.file_bytes
    )
    assert not list(tmp_path.iterdir())
    assert any("pycocotools" in note for note in notes)
