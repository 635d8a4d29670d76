"""Training images whose padding is left to the detector."""

import pytest
import torch
from torchvision import tv_tensors

from botvision.datasets.coco.augmentation import training_transform


@pytest.mark.parametrize("size", [(40, 60), (90, 31), (20, 20), (200, 150)], ids=str)
@pytest.mark.parametrize("scale", [(0.5, 0.8), (1.0, 1.0), (0.8, 2.0)], ids=str)
def test_the_same_as_with_padding_but_for_it(size, scale):
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.randint(1, 255, (3, *size), dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor([[2.0, 3.0, 12.0, 17.0]]), format="XYXY", canvas_size=size
    )
    results = []
    for padding in ((0.0, 0.0, 0.0), None):
        torch.manual_seed(7)
        target = {"boxes": boxes.clone(), "labels": torch.tensor([1]), "image_id": 3}
        results.append(training_transform(48, scale=scale, padding=padding)(image, target))
    (padded, expected), (bare, found) = results
    height, width = bare.shape[-2:]
    assert padded.shape[-2:] == (48, 48)
    assert max(height, width) <= 48
    assert bare.min() > 0
    assert torch.equal(padded[:, :height, :width], bare)
    assert (padded > 0).sum() == bare.numel()
    assert torch.equal(found["boxes"], expected["boxes"])
