"""Images people look at: what is drawn where, and that the data are left alone."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.images.draw import class_color, draw_instances, mosaic


def gray(height, width, value=100):
    return torch.full((3, height, width), value, dtype=torch.uint8)


def one_mask(height, width):
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[0, height // 4 : height // 2, width // 4 : width // 2] = 1
    return mask


def test_colors_are_fixed_and_distant():
    colors = [class_color(number) for number in range(91)]
    assert colors == [class_color(number) for number in range(91)]
    assert len(set(colors)) == 91
    assert all(0 <= part <= 255 for color in colors for part in color)
    for one, other in itertools.pairwise(colors):
        assert np.abs(np.subtract(one, other)).max() > 60


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((128, 128), (384, 384)),
        ((64, 96), (256, 384)),
        ((200, 150), (400, 300)),
        ((384, 10), (384, 10)),
        ((500, 700), (500, 700)),
        ((1, 1), (384, 384)),
    ],
    ids=str,
)
@pytest.mark.parametrize("number", [0, 1])
def test_small_images_are_enlarged_by_whole_factors(size, expected, number):
    boxes = torch.tensor([[0.0, 0.0, *size[::-1]]])[:number]
    image = draw_instances(gray(*size), boxes, [1] * number, ["cat"] * number)
    assert (image.height, image.width) == expected
    assert image.mode == "RGB"


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_input_is_not_changed(masks, dtype):
    image = gray(400, 400) if dtype == torch.uint8 else torch.full((3, 400, 400), 0.4)
    boxes = torch.tensor([[30.0, 40.0, 200.0, 300.0]])
    drawn = one_mask(400, 400) if masks else None
    inputs = [image, boxes] + ([drawn] if masks else [])
    copies = [each.clone() for each in inputs]
    labels, captions = [3], ["cat 0.9"]
    draw_instances(image, boxes, labels, captions, drawn)
    assert all(map(torch.equal, inputs, copies))
    assert (labels, captions) == ([3], ["cat 0.9"])


def test_floats_and_bytes_give_the_same_image():
    image = torch.randint(256, (3, 50, 60), dtype=torch.uint8)
    boxes, masks = torch.tensor([[5.0, 6.0, 40.0, 30.0]]), one_mask(50, 60)
    images = [
        np.asarray(draw_instances(each, boxes, [1], ["a"], masks))
        for each in (image, image.float() / 255)
    ]
    assert np.array_equal(*images)


def test_without_instances_the_image_stays():
    image = torch.randint(256, (3, 400, 390), dtype=torch.uint8)
    photo = draw_instances(image, torch.zeros(0, 4), [], [], torch.zeros(0, 400, 390))
    assert np.array_equal(np.asarray(photo), image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("factor", [1, 3])
def test_boxes_are_drawn_where_they_are(factor):
    side = 390 // factor
    boxes = torch.tensor([[60.0, 90.0, 300.0, 240.0]]) / factor
    image = np.asarray(draw_instances(gray(side, side), boxes, [4], [""]))
    colored = (image == class_color(4)).all(-1)
    rows, columns = np.nonzero(colored)
    found = [columns.min(), rows.max(), columns.max()]
    # Lines are two pixels wide; above the box stands the caption.
    np.testing.assert_allclose(found, [60, 240, 300], atol=2)
    assert colored[90:92, 100:250].any(axis=0).all()
    assert (image[110:220, 80:280] == 100).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_masks_tint_their_pixels(dtype):
    masks = one_mask(400, 400).to(dtype)
    boxes = torch.tensor([[100.0, 100.0, 200.0, 200.0]])
    image = np.asarray(draw_instances(gray(400, 400), boxes, [2], [""], masks), float)
    inside = image[110:190, 110:190]
    expected = 0.55 * 100 + 0.45 * np.array(class_color(2))
    np.testing.assert_allclose(inside, np.broadcast_to(expected, inside.shape), atol=1.5)
    assert (image[210:, 210:] == 100).all()


def test_masks_over_each_other_are_both_seen():
    masks = torch.zeros(2, 400, 400, dtype=torch.bool)
    masks[0, 100:300, 100:300] = masks[1, 200:350, 200:350] = True
    boxes = torch.tensor([[100.0, 100.0, 300.0, 300.0], [200.0, 200.0, 350.0, 350.0]])
    image = np.asarray(draw_instances(gray(400, 400), boxes, [2, 5], ["", ""], masks), float)
    first, second = (np.array(class_color(label)) for label in (2, 5))
    other = 0.55 * 100 + 0.45 * second
    np.testing.assert_allclose(image[150, 150], 0.55 * 100 + 0.45 * first, atol=1.5)
    np.testing.assert_allclose(image[320, 320], other, atol=1.5)
    # The first, of detections the surest, lies on top.
    np.testing.assert_allclose(image[250, 250], 0.55 * other + 0.45 * first, atol=1.5)
    assert tuple(image[200, 280]) == class_color(5)
    assert tuple(image[220, 300]) == class_color(2)


def test_the_first_box_and_caption_lie_on_top():
    boxes = torch.tensor([[100.0, 100.0, 300.0, 300.0]] * 2)
    for labels in ([2, 5], [5, 2]):
        image = np.asarray(draw_instances(gray(400, 400), boxes, labels, ["a", "bbbbbbbbbb"]))
        assert tuple(image[200, 100]) == class_color(labels[0])
        assert tuple(image[96, 99]) == class_color(labels[0])


def test_captions_are_written_inside_the_image():
    # Also for a box at the upper edge.
    for top in (0.0, 100.0):
        boxes = torch.tensor([[50.0, top, 350.0, 300.0]])
        plain, named = (
            np.asarray(draw_instances(gray(400, 400), boxes, [1], [text]), int)
            for text in ("", "a caption")
        )
        rows, columns = np.nonzero(np.abs(plain - named).any(-1))
        assert len(rows) > 100
        assert columns.min() >= 45
        assert (named[rows.min() : rows.max() + 1, 50:120] < 40).all(-1).any()  # black letters
        assert np.abs(rows - top).max() < 30


def test_boxes_of_detectors_need_not_be_tidy():
    # Without area, turned round, outside.
    boxes = torch.tensor([[5.0, 5, 5, 5], [30, 30, 10, 10], [-9, -9, 999, 999], [500, 5, 600, 9]])
    image = draw_instances(gray(50, 50), boxes, [0, 1, 2, 3], list("abcd"))
    assert image.size == (400, 400)


def test_as_many_captions_as_instances():
    with pytest.raises(ValueError, match="argument"):
        draw_instances(gray(50, 50), torch.tensor([[5.0, 5, 9, 9]]), [1], [])


@pytest.mark.parametrize(
    ("number", "columns", "expected"),
    [(1, None, (1, 1)), (2, None, (2, 1)), (4, None, (2, 2)), (5, None, (3, 2)), (5, 2, (2, 3))],
)
def test_mosaic(number, columns, expected):
    images = [Image.new("RGB", (30, 20), (10 * i + 10, 0, 0)) for i in range(number)]
    wide, high = expected
    sheet = np.asarray(mosaic(images, columns))
    assert sheet.shape == (high * 24 - 4, wide * 34 - 4, 3)
    covered = np.zeros(sheet.shape[:2], bool)
    for i in range(number):
        row, column = divmod(i, wide)
        cell = np.s_[row * 24 : row * 24 + 20, column * 34 : column * 34 + 30]
        assert (sheet[cell] == (10 * i + 10, 0, 0)).all()
        covered[cell] = True
    assert (sheet[~covered] == 255).all()


def test_mosaic_of_different_sizes():
    sizes = [(30, 20), (10, 40), (5, 5)]
    images = [Image.new("RGB", size, "red") for size in sizes]
    sheet = np.asarray(mosaic(images, 3))
    assert sheet.shape == (40, 98, 3)
    red = (sheet == (255, 0, 0)).all(-1)
    assert red.sum() == sum(width * height for width, height in sizes)
    assert red[:20, :30].all()
    assert red[:40, 34:44].all()
    assert red[:5, 68:73].all()
    assert all(image.size == size for image, size in zip(images, sizes, strict=True))
