"""Scale jitter, crop, pad and flip: sizes, ranges, and boxes that stay those of the masks."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torchvision import tv_tensors
from torchvision.transforms import v2

from botvision.datasets.coco.augmentation import (
    KeepVisibleInstances,
    PadToSquare,
    RandomCrop,
    evaluation_transform,
    training_transform,
)

SIZE = 48
SHAPES = [(48, 48), (40, 60), (90, 31), (20, 20), (200, 150)]


def make_item(height, width, number=6, seed=0, masks=True):
    """An image that is bright where an instance is, and instances labeled 1 to ``number``."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((number, height, width), np.uint8)
    for mask in drawn:
        top, left = rng.integers(0, (height - 4, width - 4))
        mask[top : top + rng.integers(2, 20), left : left + rng.integers(2, 20)] = 1
        mask[top, left] = 0  # not quite a rectangle
    image = np.where(drawn.any(0), 255, 40).astype(np.uint8)
    target = {
        "boxes": tv_tensors.BoundingBoxes(
            torch.from_numpy(boxes_of(drawn)), format="XYXY", canvas_size=(height, width)
        ),
        "labels": torch.arange(1, number + 1),
        "image_id": 7,
    }
    if masks:
        target["masks"] = tv_tensors.Mask(torch.from_numpy(drawn))
    return tv_tensors.Image(torch.from_numpy(image).expand(3, -1, -1).clone()), target


def boxes_of(masks):
    """x1 y1 x2 y2 around each mask, the ends behind the last pixels, in numpy."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, np.asarray(masks), strict=True):
        rows, columns = np.nonzero(mask)
        box[:] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return boxes


def geometry_of(transform):
    """The steps that draw alone: they tell where every instance went."""
    drawing = (v2.ScaleJitter, RandomCrop, v2.RandomHorizontalFlip)
    steps = [step for step in transform.transforms if isinstance(step, drawing)]
    assert len(steps) == 3
    return v2.Compose(steps)


def run(transform, item, seed):
    torch.manual_seed(seed)
    return transform(*item)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [(0.8, 1.25), (0.1, 2.0), (3.0, 3.0)], ids=str)
def test_size_boxes_masks_and_labels(shape, scale):
    transform = training_transform(SIZE, scale=scale)
    geometry = geometry_of(transform)
    item = make_item(*shape)
    for seed in range(25):
        image, target = run(transform, item, seed)
        assert (image.shape, image.dtype) == ((3, SIZE, SIZE), torch.float32)
        assert 0 <= image.min() <= image.max() <= 1
        plain, everything = run(geometry, item, seed)
        expected = torch.zeros(3, SIZE, SIZE)
        expected[:, : plain.shape[1], : plain.shape[2]] = plain / 255
        assert_close(image.as_subclass(torch.Tensor), expected)
        masks = np.zeros((6, SIZE, SIZE), np.uint8)
        masks[:, : plain.shape[1], : plain.shape[2]] = everything["masks"]
        visible = masks.any(axis=(1, 2))
        assert target["labels"].tolist() == (np.flatnonzero(visible) + 1).tolist()
        assert np.array_equal(target["masks"].numpy(), masks[visible])
        assert target["masks"].dtype == torch.uint8
        assert np.array_equal(target["boxes"].numpy(), boxes_of(masks[visible]))
        assert target["boxes"].dtype == torch.float32
        assert target["boxes"].canvas_size == (SIZE, SIZE)
        assert target["image_id"] == 7


def test_masks_stay_on_the_image():
    # Nearest masks and a smoothed image agree but for the edges.
    transform = training_transform(SIZE, scale=(0.5, 2.0))
    overlaps = []
    for seed in range(40):
        image, target = run(transform, make_item(60, 50, seed=seed), seed)
        if not len(target["labels"]):
            continue
        bright, covered = image[0] > 0.58, target["masks"].any(dim=0)
        overlaps.append(((bright & covered).sum() / (bright | covered).sum()).item())
    assert len(overlaps) > 30
    assert np.mean(overlaps) > 0.8
    assert min(overlaps) > 0.6


def test_masks_and_image_agree_exactly_without_scaling():
    transform = training_transform(SIZE, scale=(1, 1))
    for seed in range(10):
        image, target = run(transform, make_item(SIZE, SIZE, seed=seed), seed)
        assert len(target["labels"]) == 6
        assert torch.equal(image[0] > 0.5, target["masks"].any(dim=0))


def test_flips_mirror():
    item = make_item(40, 60)
    for seed in range(10):
        image, target = run(training_transform(SIZE, flip=0), item, seed)
        flipped, mirrored = run(training_transform(SIZE, flip=1), item, seed)
        width = int(image.any(0).any(0).sum())  # the image is bright everywhere, padding black
        assert torch.equal(flipped[..., :width], image[..., :width].flip(-1))
        assert torch.equal(mirrored["masks"][..., :width], target["masks"][..., :width].flip(-1))
        left, top, right, bottom = target["boxes"].unbind(1)
        expected = torch.stack([width - right, top, width - left, bottom], dim=1)
        assert torch.equal(mirrored["boxes"].as_subclass(torch.Tensor), expected)
        assert torch.equal(mirrored["labels"], target["labels"])


def test_half_of_the_images_are_flipped():
    item = make_item(SIZE, SIZE)
    plain = item[0].float() / 255
    transform = training_transform(SIZE, scale=(1, 1))
    tta = [not torch.equal(run(transform, item, seed)[0], plain) for seed in range(200)]
    assert 70 < sum(tta) < 130


def ramp(side):
    """A square image whose red grows by a fixed step a column, from 50."""
    columns = torch.linspace(50, 250, side).round().to(torch.uint8)
    boxes = tv_tensors.BoundingBoxes([[0, 0, 9, 9]], format="XYXY", canvas_size=(side, side))
    target = {"boxes": boxes, "labels": torch.tensor([1])}
    return tv_tensors.Image(columns.expand(3, side, side).clone()), target


@pytest.mark.parametrize("scale", [None, (0.5, 1.0), (0.5, 2.0), (1.5, 1.5)], ids=str)
def test_the_whole_range_of_scales_is_reached(scale):
    # The step between two columns tells by how much they were drawn apart.
    transform = training_transform(96, flip=0, **({} if scale is None else {"scale": scale}))
    factors = []
    for seed in range(200):
        image, _ = run(transform, ramp(96), seed)
        row = image[0, 0] * 255
        row = row[row > 0]
        factors.append((200 / 95) / ((row[-3] - row[2]) / (len(row) - 5)).item())
    low, high = scale or (0.8, 1.25)  # the paper's, section 4.1
    room = 0.04 * high
    assert low - room < min(factors) < low + room
    assert high - room < max(factors) < high + room
    assert np.mean(factors) == pytest.approx((low + high) / 2, abs=0.1)


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("shape", [(20, 30), (48, 10), (48, 48), (5, 48)], ids=str)
def test_small_images_are_padded_at_the_bottom_and_right(shape, flip):
    # With the network's mean, which is zero to it; masks with nothing.
    height, width = shape
    mean = (0.485, 0.456, 0.406)
    image = tv_tensors.Image(torch.full((3, height, width), 9, dtype=torch.uint8))
    target = {
        "boxes": tv_tensors.BoundingBoxes(
            [[0, 0, width, height]], format="XYXY", canvas_size=shape
        ),
        "labels": torch.tensor([1]),
        "masks": tv_tensors.Mask(torch.ones(1, height, width, dtype=torch.uint8)),
    }
    scale = max(shape) / SIZE  # of the largest that fits
    transform = training_transform(SIZE, scale=(scale, scale), flip=flip, padding=mean)
    padded, found = transform(image, target)
    expected = torch.tensor(mean)[:, None, None].repeat(1, SIZE, SIZE)
    expected[:, :height, :width] = 9 / 255
    assert_close(padded.as_subclass(torch.Tensor), expected)
    covered = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
    covered[:, :height, :width] = 1
    assert torch.equal(found["masks"].as_subclass(torch.Tensor), covered)
    assert found["boxes"].tolist() == [[0, 0, width, height]]
    assert found["boxes"].canvas_size == (SIZE, SIZE)


def test_large_images_are_cropped_anywhere():
    # Each pixel knows its place.
    rows, columns = torch.meshgrid(torch.arange(52), torch.arange(50), indexing="ij")
    image = tv_tensors.Image(torch.stack([rows, columns, rows]).to(torch.uint8))
    seen = set()
    for seed in range(150):
        torch.manual_seed(seed)
        crop = RandomCrop(SIZE)(image)
        top, left = crop[0, 0, 0].item(), crop[1, 0, 0].item()
        assert torch.equal(crop, image[:, top : top + SIZE, left : left + SIZE])
        seen.add((top, left))
    assert seen == {(top, left) for top in range(5) for left in range(3)}


def test_cropped_on_one_side_and_padded_on_the_other():
    image = tv_tensors.Image(torch.full((3, 20, 70), 9, dtype=torch.uint8))
    result = PadToSquare(SIZE, fill=(0, 0, 0))(RandomCrop(SIZE)(image))
    assert (result[:, :20] == 9).all()
    assert (result[:, 20:] == 0).all()


@pytest.mark.parametrize("masks", [True, False])
def test_images_without_instances(masks):
    item = make_item(40, 60, number=0, masks=masks)
    for seed in range(5):
        image, target = run(training_transform(SIZE, scale=(0.5, 2)), item, seed)
        assert image.shape == (3, SIZE, SIZE)
        assert target["boxes"].shape == (0, 4)
        assert target["labels"].shape == (0,)
        if masks:
            assert target["masks"].shape == (0, SIZE, SIZE)


def test_boxes_without_masks():
    # Compared with the arithmetic on the corners; a box goes when less than a pixel is left.
    item = make_item(40, 60, number=30, masks=False)
    transform = training_transform(SIZE, scale=(1.5, 3.0))
    geometry = geometry_of(transform)
    dropped = 0
    for seed in range(25):
        _, target = run(transform, item, seed)
        _, everything = run(geometry, item, seed)
        height, width = everything["boxes"].canvas_size
        boxes = np.clip(everything["boxes"].numpy(), 0, [width, height] * 2)
        visible = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
        assert target["labels"].tolist() == (np.flatnonzero(visible) + 1).tolist()
        np.testing.assert_array_equal(target["boxes"].numpy(), boxes[visible])
        assert target["boxes"].canvas_size == (SIZE, SIZE)
        dropped += (~visible).sum()
    assert dropped > 0


def test_boxes_without_masks_are_clipped():
    boxes = [[-5, -5, 5, 5], [40, 40, 60, 60], [3, 3, 3.5, 9], [60, 60, 70, 70], [3, 3, 4, 9]]
    target = {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIZE, SIZE)),
        "labels": torch.arange(5),
    }
    _, kept = KeepVisibleInstances()(torch.zeros(3, SIZE, SIZE), target)
    assert kept["labels"].tolist() == [0, 1, 4]
    assert kept["boxes"].tolist() == [[0, 0, 5, 5], [40, 40, 48, 48], [3, 3, 4, 9]]


@pytest.mark.parametrize("masks", [True, False])
def test_the_input_is_not_changed(masks):
    image, target = make_item(40, 60, masks=masks)
    copies = [t.clone() for t in (image, *target.values()) if isinstance(t, torch.Tensor)]
    run(training_transform(SIZE), (image, target), 0)
    after = [t for t in (image, *target.values()) if isinstance(t, torch.Tensor)]
    assert all(map(torch.equal, after, copies))


def test_evaluation_changes_the_numbers_only():
    image, target = make_item(40, 61)
    result, same = evaluation_transform()(image, target)
    assert (result.shape, result.dtype) == ((3, 40, 61), torch.float32)
    assert_close(result.as_subclass(torch.Tensor), image / 255)
    for key in ("boxes", "labels", "masks"):
        assert torch.equal(same[key], target[key])
        assert same[key].dtype == target[key].dtype
