"""Evaluating a weights file at another image size than it was trained at."""

import pytest
import torch

from botvision.detection import detr, mask_rcnn
from botvision.predict import evaluation
from botvision.predict.evaluation import _resize_to
from botvision.weights.file import read_description

TINY = {"num_classes": 3, "image_size": 64}


@pytest.mark.parametrize(
    ("make", "padded"),
    [
        # The feature pyramid wants multiples of 32; DETR the whole square.
        (lambda: mask_rcnn("botnet_tiny", fpn_channels=8, **TINY), (96, 64)),
        (lambda: detr("botnet_tiny", hidden_dim=16, num_heads=2, **TINY), (96, 96)),
    ],
    ids=["mask_rcnn", "detr"],
)
def test_images_are_fitted_into_the_square_asked_for(make, padded):
    detector = make().eval()
    _resize_to(96, detector.transform)
    images, _ = detector.transform([torch.rand(3, 60, 40)])
    assert images.image_sizes == [(96, 64)]
    assert images.tensors.shape[-2:] == padded
    with torch.no_grad():
        (found,) = detector([torch.rand(3, 60, 40)])
    assert found["boxes"].shape[1] == 4


def test_val_at_another_size(cli, trained_run, monkeypatch):
    sides = []

    def evaluate(model, *_, **__):
        sides.append(model.transform.max_size)
        return {"box_ap": 0.5}, []

    monkeypatch.setattr(evaluation, "evaluate_detector", evaluate)
    for options in ([], ["--image-size", 96]):
        status, _, _ = cli("val", trained_run.last, "--json", *options)
        assert status == 0
    trained_at = read_description(trained_run.last)["model"]["image_size"]
    assert sides == [trained_at, 96]
