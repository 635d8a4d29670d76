"""Copy-paste: what is pasted, what it hides, and that nothing else changes."""

import json

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from botvision.datasets.coco.augmentation import training_transform
from botvision.datasets.coco.copy_paste import paste_instances, random_subset
from botvision.datasets.coco.dataset import CocoInstances

SHAPES = [(9, 11), (1, 1), (20, 5), (32, 32)]


def draw_item(rng, height, width, number, dtype=torch.uint8):
    """Noise, and instances that overlap each other, labeled 1 and up."""
    masks = np.zeros((number, height, width), np.uint8)
    for mask in masks:
        top, left = rng.integers(0, (height, width))
        mask[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = 1
        mask[rng.random(mask.shape) < 0.3] = 0
        mask[top, left] = 1
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    image = image if dtype == torch.uint8 else image / 255
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([box_of(mask) for mask in masks]).reshape(-1, 4),
        format="XYXY",
        canvas_size=(height, width),
    )
    target = {
        "boxes": boxes,
        "labels": torch.arange(1, number + 1),
        "masks": tv_tensors.Mask(torch.from_numpy(masks)),
        "image_id": int(rng.integers(1000)),
    }
    return tv_tensors.Image(image), target


def box_of(mask):
    """x1 y1 x2 y2 around a mask, pixel by pixel."""
    places = [(x, y) for y, row in enumerate(mask.tolist()) for x, value in enumerate(row) if value]
    xs, ys = zip(*places, strict=True)
    return [float(v) for v in (min(xs), min(ys), max(xs) + 1, max(ys) + 1)]


def pasted_by_hand(onto, source, chosen):
    """The same, a pixel after the other: image, and (label, mask) of each instance in order."""
    (image, target), (other, other_target) = onto, source
    image, other = image.numpy().copy(), other.numpy()
    old = target["masks"].numpy().copy()
    new = np.zeros((int(chosen.sum()), *image.shape[1:]), np.uint8)
    places = [n for n, each in enumerate(chosen.tolist()) if each]
    for y in range(min(image.shape[1], other.shape[1])):
        for x in range(min(image.shape[2], other.shape[2])):
            for number, place in enumerate(places):
                if other_target["masks"][place, y, x]:
                    new[number, y, x] = 1
                    image[:, y, x] = other[:, y, x]
                    old[:, y, x] = 0
    labels = [*target["labels"].tolist(), *other_target["labels"][chosen].tolist()]
    pairs = zip(labels, [*old, *new], strict=True)
    return image, [(label, mask) for label, mask in pairs if mask.any()]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("other_shape", SHAPES, ids=str)
def test_the_same_as_by_hand(shape, other_shape, dtype):
    rng = np.random.default_rng([*shape, *other_shape])
    for number in (0, 1, 5):
        onto = draw_item(rng, *shape, number, dtype)
        source = draw_item(rng, *other_shape, 4, dtype)
        chosen = torch.from_numpy(rng.random(4) < 0.6)
        image, target = paste_instances(onto, source, chosen)
        expected, instances = pasted_by_hand(onto, source, chosen)
        assert (image.dtype, type(image)) == (dtype, tv_tensors.Image)
        assert np.array_equal(image.numpy(), expected)
        assert target["labels"].tolist() == [label for label, _ in instances]
        assert (target["masks"].dtype, type(target["masks"])) == (torch.uint8, tv_tensors.Mask)
        assert target["masks"].shape == (len(instances), *shape)
        for mask, box, (_, wanted) in zip(
            target["masks"], target["boxes"].tolist(), instances, strict=True
        ):
            assert np.array_equal(mask.numpy(), wanted)
            assert box == box_of(wanted)
        assert target["boxes"].canvas_size == shape
        assert target["image_id"] == onto[1]["image_id"]


def test_the_given_items_are_not_changed():
    rng = np.random.default_rng(0)
    items = [draw_item(rng, 9, 9, 3) for _ in range(2)]
    tensors = [t for item in items for t in (item[0], *item[1].values()) if hasattr(t, "clone")]
    copies = [tensor.clone() for tensor in tensors]
    paste_instances(*items, torch.tensor([True, True, False]))
    assert all(map(torch.equal, tensors, copies))


def test_any_subset_but_none_is_drawn():
    torch.manual_seed(0)
    drawn = [random_subset(3) for _ in range(600)]
    assert all(each.dtype == torch.bool for each in drawn)
    counts = {}
    for each in drawn:
        counts[tuple(each.tolist())] = counts.get(tuple(each.tolist()), 0) + 1
    # One, two or all three, a third each; among as many, all alike.
    assert len(counts) == 7
    assert counts.pop((True,) * 3) == pytest.approx(200, abs=45)
    assert all(count == pytest.approx(67, abs=30) for count in counts.values())


SIZES = [(24, 32), (32, 24), (21, 23), (24, 32), (20, 20)]


@pytest.fixture
def folder(write_coco, random_polygons):
    """Five images, the fourth without annotations, with two crowds in the second."""
    images = [
        {"id": 10 * i, "file_name": f"{i}.png", "height": h, "width": w}
        for i, (h, w) in enumerate(SIZES)
    ]
    annotations = []
    for image in images[:3] + images[4:]:
        rng = np.random.default_rng(image["id"])
        size = {"height": image["height"], "width": image["width"]}
        annotations += random_polygons(rng, 4, image_id=image["id"], **size)
    annotations[4]["iscrowd"] = annotations[6]["iscrowd"] = 1
    return write_coco(images, annotations)


def open_data(folder, copy_paste, *, masks=True, seed=0, transform=None):
    data = CocoInstances(folder, "train", masks=masks, seed=seed, transform=transform)
    data.copy_paste = copy_paste
    return data


def test_every_instance_is_accounted_for(folder):
    """Without a transform, all pixels and instances can be traced to the images they are of."""
    plain = [open_data(folder, 0)[0, i] for i in range(5)]
    seen = set()
    pastes = 0
    for epoch in range(6):
        for index, (image, target) in enumerate(open_data(folder, 1)[epoch, i] for i in range(5)):
            own, own_target = plain[index]
            changed = (image != own).any(0)
            sources = [
                other
                for other in range(5)
                if other != index and is_pasted(plain[other], changed, image)
            ]
            assert target["image_id"] == own_target["image_id"]
            if not changed.any():  # the source shows nothing, or nothing here
                assert torch.equal(target["masks"], own_target["masks"])
                continue
            assert len(sources) == 1
            seen.add((index, sources[0]))
            pastes += 1
            other_target = plain[sources[0]][1]
            chosen = subset_that_gives(other_target["masks"], changed)
            assert chosen.any()
            expected, instances = pasted_by_hand(plain[index], plain[sources[0]], chosen)
            assert np.array_equal(image.numpy(), expected)
            assert target["labels"].tolist() == [label for label, _ in instances]
            assert np.array_equal(target["masks"].numpy(), np.stack([m for _, m in instances]))
            assert target["boxes"].tolist() == [box_of(mask) for _, mask in instances]
    assert pastes > 18
    assert {source for _, source in seen} == {0, 1, 2, 4}  # the fourth has nothing to paste
    assert {index for index, _ in seen} == {0, 1, 2, 3, 4}


def is_pasted(source, changed, image):
    """Whether all pixels that changed are those of the source."""
    other = source[0][:, : image.shape[1], : image.shape[2]]
    inside = changed[: other.shape[1], : other.shape[2]]
    return inside.sum() == changed.sum() and bool(
        (image[:, : other.shape[1], : other.shape[2]] == other)[:, inside].all()
    )


def subset_that_gives(masks, covered):
    """The one subset of masks whose union is what is covered, by trying all."""
    height, width = covered.shape
    fitted = torch.zeros(len(masks), height, width, dtype=torch.bool)
    part = masks.as_subclass(torch.Tensor)[:, :height, :width].bool()
    fitted[:, : part.shape[1], : part.shape[2]] = part
    found = []
    for number in range(2 ** len(masks)):
        chosen = torch.tensor([bool(number >> i & 1) for i in range(len(masks))])
        if torch.equal(fitted[chosen].any(0), covered):
            found.append(chosen)
    return found[0]


@pytest.mark.parametrize("masks", [True, False])
def test_without_a_probability_nothing_changes(folder, masks):
    transform = training_transform(32)
    before = CocoInstances(folder, "train", masks=masks, transform=transform)
    after = open_data(folder, 0.0, masks=masks, transform=transform)
    for index in range(5):
        (image, target), (other, other_target) = before[2, index], after[2, index]
        assert torch.equal(image, other)
        assert target.keys() == other_target.keys()
        assert torch.equal(target["boxes"], other_target["boxes"])


def test_items_stay_as_they_are_where_nothing_is_pasted(folder):
    """The same draws with and without: a change of the probability changes nothing else."""
    transform = training_transform(32, scale=(0.5, 2))
    without = open_data(folder, 0.0, transform=transform)
    half = open_data(folder, 0.5, transform=transform)
    always = open_data(folder, 1.0, transform=transform)
    alike = 0
    for key in [(epoch, index) for epoch in range(6) for index in range(5)]:
        images = [data[key][0] for data in (without, half, always)]
        assert torch.equal(images[1], images[0]) or torch.equal(images[1], images[2])
        alike += torch.equal(images[1], images[0])
    assert 8 < alike < 25


def test_the_pasted_image_is_transformed_in_its_own_right(folder):
    def shade(image, target):
        return torch.full_like(image, int(torch.randint(256, ()))), target

    shades = [open_data(folder, 1, transform=shade)[epoch, 0][0].unique() for epoch in range(30)]
    assert sum(len(each) == 2 for each in shades) > 15
    assert max(map(len, shades)) == 2


def test_boxes_alone_are_pasted_by_masks(folder):
    transform = training_transform(32, scale=(0.5, 2))
    with_masks = open_data(folder, 1, transform=transform)
    without = open_data(folder, 1, masks=False, transform=transform)
    for index in range(5):
        (image, target), (other, other_target) = with_masks[1, index], without[1, index]
        assert torch.equal(image, other)
        assert "masks" not in other_target
        assert torch.equal(target["boxes"], other_target["boxes"])
        assert torch.equal(target["labels"], other_target["labels"])


def test_instances_without_outlines_are_pasted_as_boxes(folder):
    path = folder / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = []
        annotation["bbox"] = [2, 3, 7, 5]
    path.write_text(json.dumps(content))
    data = open_data(folder, 1, masks=False)
    image, target = data[0, 3]  # the one without own annotations
    assert set(map(tuple, target["boxes"].tolist())) == {(2, 3, 9, 8)}
    changed = (image != open_data(folder, 0)[0, 3][0]).any(0)
    assert changed[3:8, 2:9].all()
    assert changed.sum() == 35


def test_a_single_image_is_left_alone(write_coco, random_polygons):
    image = {"id": 1, "file_name": "a.png", "height": 30, "width": 30}
    annotations = random_polygons(np.random.default_rng(0), 3, height=30, width=30)
    folder = write_coco([image], annotations)
    assert torch.equal(open_data(folder, 1)[0, 0][0], open_data(folder, 0)[0, 0][0])
