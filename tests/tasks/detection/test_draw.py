"""Detections drawn on their image: as before they were kept as supervision's Detections."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes

from botvision.images import draw
from botvision.images.draw import class_color, draw_instances
from botvision.supervision_import import import_supervision
from botvision.tasks.detection.writer import draw_detections

sv = import_supervision()
NAMES = ["ant", "bee", "cow"]


def example(height, width):
    """An image and three ellipses that overlap, with boxes a little larger."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    masks, boxes = [], []
    for x, y, a, b in ((0.4, 0.4, 0.3, 0.2), (0.5, 0.5, 0.2, 0.4), (0.9, 0.6, 0.3, 0.3)):
        x, y, a, b = x * width, y * height, a * width, b * height
        masks.append(((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1)
        boxes.append([x - a - 0.3, y - b - 0.6, x + a + 0.4, y + b + 0.7])
    boxes = np.clip(boxes, 0, [width, height] * 2).astype(np.float32)
    found = sv.Detections(
        xyxy=boxes,
        confidence=np.array([0.876, 0.5, 0.25], np.float32),
        class_id=np.array([2, 0, 2]),
        mask=sv.CompactMask.from_dense(np.stack(masks), boxes, (height, width)),
    )
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), np.uint8)), found


def drawn_before(image, found, factor):
    """The whole image blended as floats, and boxes by torchvision; captions aside."""
    size = [side * factor for side in image.shape[1:]]
    canvas = F.resize(image, size, antialias=False)
    masks = torch.from_numpy(found.mask.to_dense()).to(torch.uint8)
    masks = F.resize(masks, size, interpolation=F.InterpolationMode.NEAREST)
    colors = [class_color(label + 1) for label in found.class_id[::-1].tolist()]
    blended = canvas.float()
    for mask, color in zip(masks.bool().flip(0), colors, strict=True):
        blended[:, mask] += 0.45 * (torch.tensor(color)[:, None] - blended[:, mask])
    boxes = torch.from_numpy(found.xyxy).flip(0) * factor
    canvas = draw_bounding_boxes(blended.round().to(torch.uint8), boxes, colors=colors, width=2)
    return canvas.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("size", "factor"), [((410, 500), 1), ((97, 130), 3), ((23, 31), 12)])
def test_the_image_is_that_of_before(size, factor, monkeypatch):
    monkeypatch.setattr(draw, "draw_caption", lambda *arguments: None)
    image, found = example(*size)
    expected = drawn_before(image, found, factor)
    assert np.array_equal(np.asarray(draw_detections(image, found, NAMES)), expected)


def test_captions_and_colors_are_of_the_class():
    image, found = example(400, 500)
    captions = ["cow 0.88", "ant 0.50", "cow 0.25"]
    expected = draw_instances(image, found.xyxy, [3, 1, 3], captions, found.mask)
    assert draw_detections(image, found, NAMES) == expected


def test_dense_and_compact_masks_give_the_same_image():
    image, found = example(97, 130)
    expected = draw_detections(image, found, NAMES)
    found.mask = found.mask.to_dense()
    assert draw_detections(image, found, NAMES) == expected


def test_detections_without_masks_or_none_at_all():
    image, found = example(400, 500)
    nothing = found[np.zeros(3, bool)]
    untouched = image.permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(draw_detections(image, nothing, NAMES)), untouched)
    found.mask = None
    drawn = np.asarray(draw_detections(image, found, NAMES))
    assert np.array_equal(drawn[200, 220:280], untouched[200, 220:280])
    assert not np.array_equal(drawn, untouched)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_large_images_are_drawn_small(dtype):
    image, found = example(900, 1200)
    image = torch.full_like(image, 100)
    whole = np.asarray(draw_detections(image, found, [""] * 3), float)
    image = F.to_dtype(image, dtype, scale=True)
    small = draw_detections(image, found, [""] * 3, max_side=400)
    assert small.size == (400, 300)
    every_third = np.asarray(small, float) - whole[1::3, 1::3]
    # But for lines, captions and outlines.
    assert (np.abs(every_third).max(axis=-1) < 2).mean() > 0.9
    assert np.asarray(small)[:, 380:].std() > 10
    large_enough = draw_detections(image, found, NAMES, max_side=1200)
    assert large_enough == draw_detections(image, found, NAMES)
