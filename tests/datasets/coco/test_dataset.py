"""COCO folders as a torch data set: what an item holds, and what its augmentation depends on."""

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from botvision.datasets.coco.augmentation import training_transform
from botvision.datasets.coco.dataset import CocoInstances
from botvision.errors import BotvisionError

# pycocotools' own, with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZES = [(48, 64), (64, 48), (31, 33), (48, 64)]
KEYS = [(epoch, index) for epoch in range(2) for index in (2, 0, 3, 1)]


@pytest.fixture
def folder(write_coco, random_polygons):
    """Four images, the last without annotations, the second with a crowd."""
    images = [
        {"id": 10 * i, "file_name": f"{i}.png", "height": h, "width": w}
        for i, (h, w) in enumerate(SIZES)
    ]
    annotations = []
    for image in images[:3]:
        rng = np.random.default_rng(image["id"])
        annotations += random_polygons(
            rng, 5, image_id=image["id"], height=image["height"], width=image["width"]
        )
    annotations[6]["iscrowd"] = 1
    return write_coco(images, annotations)


def assert_same(one, other):
    (image, target), (other_image, other_target) = one, other
    assert torch.equal(image, other_image)
    assert target.keys() == other_target.keys()
    for key in target.keys() - {"image_id"}:
        assert torch.equal(target[key], other_target[key])
    assert target["image_id"] == other_target["image_id"]


def as_they_are(items):
    return items


def test_items_hold_what_the_file_says(folder, capsys):
    data = CocoInstances(folder, "train")
    coco = COCO(folder / "annotations" / "instances_train.json")
    labels = {1: 1, 5: 2, 90: 3}
    assert len(data) == 4
    for index, (height, width) in enumerate(SIZES):
        image, target = data[0, index]
        assert isinstance(image, tv_tensors.Image)
        assert (image.shape, image.dtype) == ((3, height, width), torch.uint8)
        with Image.open(folder / "images" / f"{index}.png") as photo:
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(photo))
        records = coco.loadAnns(coco.getAnnIds(imgIds=[10 * index], iscrowd=False))
        assert target["image_id"] == 10 * index
        assert target["labels"].tolist() == [labels[each["category_id"]] for each in records]
        assert target["labels"].dtype == torch.int64
        boxes = np.array([each["bbox"] for each in records]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes = np.clip(boxes, 0, [width, height] * 2)
        assert target["boxes"].dtype == torch.float32
        assert target["boxes"].canvas_size == (height, width)
        np.testing.assert_allclose(target["boxes"].numpy(), boxes, rtol=1e-6)
        assert (target["masks"].shape, target["masks"].dtype) == (
            (len(records), height, width),
            torch.uint8,
        )
        for mask, record in zip(target["masks"], records, strict=True):
            assert np.array_equal(mask.numpy(), coco.annToMask(record))


def test_crowds_are_kept_for_evaluation_only(folder):
    data = CocoInstances(folder, "train")
    assert len(data.annotations.instances[10]) == 5
    assert len(data[0, 1][1]["labels"]) == 4


def test_images_without_annotations_are_negatives(folder):
    _, target = CocoInstances(folder, "train")[0, 3]
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["masks"].shape == (0, 48, 64)
    assert (target["labels"].dtype, target["masks"].dtype) == (torch.int64, torch.uint8)


def test_category_ids_become_labels_in_id_order(folder):
    assert [c.id for c in CocoInstances(folder, "train").categories] == [1, 5, 90]
    assert [c.name for c in CocoInstances(folder, "train").categories] == ["cat", "dog", "cup"]


def test_without_masks(folder):
    with_masks, without = (CocoInstances(folder, "train", masks=m) for m in (True, False))
    for index in range(4):
        expected = with_masks[0, index]
        del expected[1]["masks"]
        assert_same(without[0, index], expected)


def test_no_images_at_all(write_coco):
    with pytest.raises(BotvisionError, match="images: expected at least one, got none"):
        CocoInstances(write_coco([]), "train")


@pytest.mark.parametrize("masks", [True, False])
def test_augmentation_does_not_depend_on_the_workers(folder, masks):
    data = CocoInstances(folder, "train", transform=training_transform(32), masks=masks, seed=5)
    loaded = {}
    for num_workers in (0, 2):
        torch.manual_seed(num_workers)
        loader = DataLoader(
            data, sampler=KEYS, batch_size=3, num_workers=num_workers, collate_fn=as_they_are
        )
        loaded[num_workers] = [item for batch in loader for item in batch]
    assert len(loaded[0]) == len(loaded[2]) == len(KEYS)
    for key, one, other in zip(KEYS, loaded[0], loaded[2], strict=True):
        assert_same(one, other)
        # Nor on what was read before.
        assert_same(data[key], one)


def test_augmentation_differs_by_seed_epoch_and_index(folder):
    def draw(image, target):
        return torch.rand(4), target

    seen = set()
    for seed in (0, 1):
        data = CocoInstances(folder, "train", transform=draw, seed=seed)
        seen |= {tuple(data[epoch, i][0].tolist()) for epoch in range(3) for i in range(4)}
    assert len(seen) == 24


def test_the_global_generator_is_neither_used_nor_touched(folder):
    data = CocoInstances(folder, "train", transform=training_transform(32))
    torch.manual_seed(1)
    one = data[3, 0]
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert_same(data[3, 0], one)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_generators_of_accelerators_are_not_touched(folder, monkeypatch):
    # Without num_workers, an item read between two steps must not reseed dropout on the GPU.
    def fail(*_):
        raise AssertionError("an accelerator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)
    CocoInstances(folder, "train", transform=training_transform(32))[0, 0]


def test_the_generator_is_restored_when_the_transform_fails(folder):
    def fail(image, target):
        torch.rand(3)
        raise RuntimeError("transform")

    torch.manual_seed(2)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="transform"):
        _ = CocoInstances(folder, "train", transform=fail)[0, 0]
    assert torch.equal(torch.get_rng_state(), before)


def test_subfolders_of_the_image_folder_are_inside(folder, write_coco):
    (folder / "images" / "a").mkdir()
    (folder / "images" / "b").mkdir()
    record = {"id": 1, "file_name": "a/../b/1.png", "height": 9, "width": 9}
    data = CocoInstances(write_coco([record], split="val"), "val")
    assert data[0, 0][0].shape == (3, 9, 9)
