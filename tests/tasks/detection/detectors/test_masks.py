"""Masks come back from their boxes as they were cut out."""

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes
from torchvision.ops import masks_to_boxes

from botvision.detection import mask_rcnn
from botvision.tasks.detection.detectors.masks import paste_masks


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
    assert paste_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (9, 7)).shape == (0, 1, 9, 7)


def test_the_detector_pastes_into_the_original_image():
    detector = mask_rcnn("botnet_tiny", 3, image_size=64, fpn_channels=16, box_score_thresh=0.0)
    with torch.inference_mode():
        outputs = detector.eval()([torch.rand(3, 50, 91), torch.rand(3, 128, 64)])
    assert [tuple(o["masks"].shape[-2:]) for o in outputs] == [(50, 91), (128, 64)]
    assert all(len(o["masks"]) == len(o["boxes"]) > 0 for o in outputs)
