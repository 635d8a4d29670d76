"""DETR's boxes against Transformers' post-processing and numbers computed by hand."""

import types

import pytest
import torch

from botvision.tasks.detection.detectors.detr_losses import detections_of, relative_targets


def test_targets_by_hand():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 200.0, 100.0]])
    (found,) = relative_targets([{"boxes": boxes, "labels": torch.tensor([1, 4])}], [(100, 200)])
    expected = torch.tensor([[0.1, 0.4, 0.1, 0.4], [0.5, 0.5, 1.0, 1.0]])
    assert torch.allclose(found["boxes"], expected)
    assert found["class_labels"].tolist() == [0, 3]


def test_no_targets():
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    (found,) = relative_targets([nothing], [(10, 20)])
    assert found["boxes"].shape == (0, 4)
    assert found["class_labels"].dtype == torch.int64


@pytest.mark.parametrize("size", [(480, 640), (31, 7)])
def test_back_and_forth(size):
    torch.manual_seed(0)
    height, width = size
    corners = torch.rand(5, 2, 2).sort(dim=1).values.flatten(1)
    boxes = corners * torch.tensor([width, height, width, height])
    (relative,) = relative_targets([{"boxes": boxes, "labels": torch.arange(1, 6)}], [size])
    logits = torch.zeros(1, 5, 6)
    # The surer the later, so that the order shows.
    for number, label in enumerate(relative["class_labels"].tolist()):
        logits[0, number, label] = 1 + number
    (found,) = detections_of(logits, relative["boxes"][None], [size])
    assert found["labels"].tolist() == [5, 4, 3, 2, 1]
    assert torch.allclose(found["boxes"].flip(0), boxes, atol=1e-3)


def test_agrees_with_transformers():
    from transformers import DetrImageProcessor

    torch.manual_seed(0)
    logits, boxes = torch.randn(3, 9, 5), torch.rand(3, 9, 4)
    sizes = [(480, 640), (33, 100), (7, 5)]
    outputs = types.SimpleNamespace(logits=logits, pred_boxes=boxes)
    expected = DetrImageProcessor().post_process_object_detection(
        outputs, threshold=0.0, target_sizes=sizes
    )
    found = detections_of(logits, boxes, sizes)
    for one, other, (height, width) in zip(found, expected, sizes, strict=True):
        order = other["scores"].argsort(descending=True)
        assert torch.allclose(one["scores"], other["scores"][order])
        assert torch.equal(one["labels"], other["labels"][order] + 1)
        # Ours end at the edge of the image, as torchvision's.
        inside = other["boxes"][order].clamp(min=0).minimum(torch.tensor([width, height] * 2))
        assert torch.allclose(one["boxes"], inside, atol=1e-3)


def test_the_background_is_never_found():
    logits = torch.zeros(1, 2, 4)
    logits[..., -1] = 10
    (found,) = detections_of(logits, torch.full((1, 2, 4), 0.5), [(10, 10)])
    assert (found["scores"] < 0.01).all()
    assert set(found["labels"].tolist()) <= {1, 2, 3}
