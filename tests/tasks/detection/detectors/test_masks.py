"""Masks come back from their boxes as they were cut out, and without a grid of the image."""

import itertools
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import masks_to_boxes

from botvision.detection import mask_rcnn
from botvision.tasks.detection.detectors.masks import compact_masks, paste_masks
from botvision.tasks.detection.detectors.transform import DetectorTransform, unpasted_masks


def specification(masks, boxes, size):
    """What pasting is: every mask sampled at every pixel of the image."""
    boxes = boxes.to(masks.dtype)
    axes = []
    for axis, length in enumerate(reversed(size)):
        first, last = boxes[:, axis, None], boxes[:, axis + 2, None]
        pixels = torch.arange(length, dtype=boxes.dtype)
        axes.append((pixels - first) / (last - first).clamp(min=1e-6) * 2 - 1)
    x, y = axes
    height, width = size
    grid = torch.stack(
        (x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), dim=-1
    )
    return F.grid_sample(masks, grid, align_corners=False)


def assert_as_specified(masks, boxes, size):
    expected = specification(masks, boxes, size)
    assert torch.equal(paste_masks(masks, boxes, size), expected)
    compact = compact_masks(masks, boxes, size)
    assert compact.shape == (len(boxes), *size)
    assert np.array_equal(compact.to_dense(), expected[:, 0] >= 0.5)


def _blobs(count, size, seed):
    """Random ellipses and their boxes, of about 12 to 50 pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    masks = []
    for _ in range(count):
        y, x = rng.uniform(30, size[0] - 30), rng.uniform(30, size[1] - 30)
        a, b = rng.uniform(6, 25, 2)
        masks.append(((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1)
    stacked = torch.from_numpy(np.stack(masks)).to(torch.uint8)
    boxes = masks_to_boxes(stacked)
    boxes[:, 2:] += 1
    return stacked, boxes


def _overlap(pasted, masks):
    found, truth = pasted[:, 0] >= 0.5, masks.bool()
    return (found & truth).sum((1, 2)) / (found | truth).sum((1, 2))


coordinates = st.floats(-300, 600, width=32) | st.integers(-3, 400).map(float)
spans = st.floats(0, 500, width=32) | st.sampled_from([0.0, 1e-7, 0.3, 1.0, 28.0, 1e4])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(coordinates, coordinates, spans, spans), min_size=1, max_size=4),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.integers(0, 2**30),
    st.sampled_from([1, 7, 28]),
)
def test_any_box_is_pasted_as_specified(boxes, size, seed, side):
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=torch.float32)
    masks = torch.rand(len(boxes), 1, side, side, generator=torch.manual_seed(seed))
    assert_as_specified(masks, boxes, size)
    assert_as_specified((masks > 0.3).float(), boxes, size)  # probabilities of exactly 1


def test_boxes_at_the_edges_and_thin_ones_are_pasted_as_specified():
    size = height, width = 90, 130
    edges = [(0, 0, width, height), (-40, -9, width + 7, height + 60), (-50, 3, -1, 20)]
    edges += [(width, height, width + 9, height + 9), (5, 5, 5, 5), (20, 30, 10, 15)]
    thin = [(x, 10, x + w, 60) for x, w in itertools.product((9.0, 9.5, 9.99), (0.01, 0.4, 0.9))]
    boxes = torch.tensor([*edges, *thin], dtype=torch.float32)
    for dtype in (torch.float32, torch.float64):
        masks = torch.rand(len(boxes), 1, 28, 28, dtype=dtype, generator=torch.manual_seed(0))
        assert_as_specified(masks, boxes, size)
        assert_as_specified(torch.ones_like(masks), boxes, size)


def test_windows_of_many_chunks_are_pasted_as_specified():
    boxes = torch.tensor([[0, 0, 700, 500], [33.3, 44.4, 601.7, 470.2]])
    masks = torch.rand(2, 1, 28, 28, generator=torch.manual_seed(0))
    assert_as_specified(masks, boxes, (500, 700))


@pytest.mark.parametrize("size", [(100, 140), (97, 81)])
def test_perfect_targets_come_back_almost_perfect(size):
    masks, boxes = _blobs(20, size, seed=0)
    targets = project_masks_on_boxes(masks, boxes, torch.arange(len(boxes)), 28)[:, None]
    ours = _overlap(paste_masks(targets, boxes, size), masks)
    theirs = _overlap(paste_masks_in_image(targets, boxes, size), masks)
    assert ours.min() > 0.95
    # The reason for a function of our own: torchvision's pasting loses what the network had.
    assert theirs.mean() < ours.mean() - 0.05


def test_nothing_outside_the_boxes():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 44.0]])
    pasted = paste_masks(torch.ones(1, 1, 28, 28), boxes, (60, 50))[0, 0]
    rows, columns = torch.nonzero(pasted >= 0.5, as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 44, 10, 30)


def test_no_masks():
    nothing = torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (9, 7)
    assert paste_masks(*nothing).shape == (0, 1, 9, 7)
    assert compact_masks(*nothing).shape == (0, 9, 7)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    options = {"image_size": 64, "fpn_channels": 16, "box_score_thresh": 0.0}
    return mask_rcnn("botnet_tiny", 3, **options).eval()


def test_the_detector_pastes_into_the_original_image(detector):
    with torch.inference_mode():
        outputs = detector([torch.rand(3, 50, 91), torch.rand(3, 128, 64)])
    assert [tuple(o["masks"].shape[-2:]) for o in outputs] == [(50, 91), (128, 64)]
    assert all(len(o["masks"]) == len(o["boxes"]) > 0 for o in outputs)


def test_masks_are_left_unpasted_in_one_thread_only(detector):
    image = torch.rand(3, 50, 91)
    shapes = []

    def look():
        with torch.inference_mode():
            (output,) = detector([image])
        shapes.append(tuple(output["masks"].shape[-2:]))

    with unpasted_masks():
        look()
        other = threading.Thread(target=look)
        other.start()
        other.join()
    look()
    assert shapes == [(28, 28), (50, 91), (50, 91)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_are_normalized_as_torchvision_does(dtype):
    arguments = (64, 64, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    image = torch.rand(3, 50, 91, dtype=dtype)
    untouched = image.clone()
    expected = GeneralizedRCNNTransform(*arguments).normalize(image)
    assert torch.equal(DetectorTransform(*arguments).normalize(image), expected)
    assert torch.equal(image, untouched)
