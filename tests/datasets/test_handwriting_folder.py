"""The written handwriting folder: all or nothing, exact, and readable by others."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from botvision.datasets.handwriting import HandwritingScenes, write_handwriting
from botvision.errors import BotvisionError

# pycocotools' own, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COUNTS = {"train": 5, "val": 3}
SIZE = 72


def silent(done, total):
    """No progress is shown."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("handwriting") / "scenes"
    write_handwriting(path, **COUNTS, size=SIZE, seed=1, progress=silent)
    return path


@pytest.fixture(params=COUNTS)
def split(request):
    return request.param


def annotations_of(folder, split):
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())


def test_layout(folder):
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    images = [f"images/{s}_{n:06d}.jpg" for s, count in COUNTS.items() for n in range(count)]
    files = [f"annotations/instances_{s}.json" for s in COUNTS]
    assert found == sorted(files + images)


def test_records(folder, split):
    content = annotations_of(folder, split)
    assert [c["name"] for c in content["categories"]] == [str(digit) for digit in range(10)]
    assert len(content["images"]) == COUNTS[split]
    for record in content["images"]:
        with Image.open(folder / "images" / record["file_name"]) as image:
            assert image.size == (record["width"], record["height"]) == (SIZE, SIZE)
    ids = [annotation["id"] for annotation in content["annotations"]]
    assert len(set(ids)) == len(ids)


def test_boxes_areas_and_masks_are_those_of_the_scenes(folder, split):
    # numpy and pycocotools know nothing of the encoder that wrote the file.
    content = annotations_of(folder, split)
    scenes = HandwritingScenes(split, size=SIZE, seed=1)
    for number, record in enumerate(content["images"]):
        scene = scenes.scene(number)
        own = [a for a in content["annotations"] if a["image_id"] == record["id"]]
        assert [a["category_id"] - 1 for a in own] == scene.digits
        assert [a["iscrowd"] for a in own] == [0] * len(own)
        for annotation, mask in zip(own, scene.masks, strict=True):
            rows, columns = np.nonzero(mask)
            left, top = columns.min(), rows.min()
            box = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            assert annotation["bbox"] == box
            assert annotation["area"] == mask.sum()
            assert np.array_equal(oracle.decode(annotation["segmentation"]), mask)


def test_images_are_those_of_the_scenes(folder, split):
    scenes = HandwritingScenes(split, size=SIZE, seed=1)
    for number in range(COUNTS[split]):
        with Image.open(folder / "images" / f"{split}_{number:06d}.jpg") as image:
            difference = np.asarray(image.convert("RGB"), float) - scenes.scene(number).image
        assert np.abs(difference).mean() < 4  # JPEG of quality 95


def test_pycocotools_reads_it(folder, split, capsys):
    coco = COCO(folder / "annotations" / f"instances_{split}.json")
    assert len(coco.getImgIds()) == COUNTS[split]
    assert coco.getCatIds() == list(range(1, 11))
    assert all(
        coco.annToMask(each).sum() == each["area"] for each in coco.loadAnns(coco.getAnnIds())
    )


def test_our_data_set_reads_it(folder, split):
    from botvision.datasets.coco.dataset import CocoInstances

    data = CocoInstances(folder, split)
    scenes = HandwritingScenes(split, size=SIZE, seed=1)
    assert len(data) == COUNTS[split]
    assert not data.annotations.skipped
    for number in range(len(data)):
        scene = scenes.scene(number)
        image, target = data[0, number]
        assert image.shape == (3, SIZE, SIZE)
        assert (target["labels"] - 1).tolist() == scene.digits
        assert np.array_equal(target["masks"].numpy(), scene.masks)


def test_writing_again_gives_the_same_bytes(folder, tmp_path):
    write_handwriting(tmp_path / "again", **COUNTS, size=SIZE, seed=1, progress=silent)
    for path in folder.rglob("*"):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_progress_counts_to_the_total(tmp_path):
    seen = []
    write_handwriting(
        tmp_path / "a", train=3, val=2, size=32, progress=lambda *each: seen.append(each)
    )
    assert seen == [(done, 5) for done in range(1, 6)]


def test_the_folder_appears_only_when_complete(tmp_path):
    target = tmp_path / "a"
    there = []
    write_handwriting(
        target, train=2, val=1, size=32, progress=lambda *_: there.append(target.exists())
    )
    assert there == [False] * 3
    assert target.is_dir()


@pytest.mark.parametrize("stop", [1, 2, 3], ids=["first", "last of train", "last"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path, stop, error):
    def fail(done, total):
        if done == stop:
            raise error("stop")

    with pytest.raises(error, match="stop"):
        write_handwriting(tmp_path / "a", train=2, val=1, size=32, progress=fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "full folder", "file"])
def test_what_exists_is_refused_and_stays(tmp_path, kind):
    target = tmp_path / "a"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
    if kind == "full folder":
        (target / "notes").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BotvisionError, match="already exists"):
        write_handwriting(target, train=1, val=1, size=32, progress=silent)
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_parents_are_made(tmp_path):
    write_handwriting(tmp_path / "a" / "b", train=1, val=0, size=32, progress=silent)
    assert (tmp_path / "a" / "b" / "images").is_dir()
    assert annotations_of(tmp_path / "a" / "b", "val")["images"] == []


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_honor_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_handwriting(tmp_path / "a", train=1, val=0, size=32, progress=silent)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~mask
