"""Wrong targets are refused alike by all detectors, in one line."""

import math

import pytest
import torch

from botvision.detection import detr, faster_rcnn, mask_rcnn

BOX = [5.0, 5.0, 40.0, 40.0]


def targets(box=BOX, label=1):
    return [
        {
            "boxes": torch.tensor([BOX, box]),
            "labels": torch.tensor([1, label]),
            "masks": torch.ones(2, 64, 64, dtype=torch.uint8),
        }
    ]


@pytest.fixture(scope="module", params=[mask_rcnn, faster_rcnn, detr], ids=lambda f: f.__name__)
def detector(request):
    torch.manual_seed(0)
    return request.param("botnet_tiny", num_classes=3, image_size=64).train()


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": 3},
        {"label": 0},
        {"label": -1},
        {"box": [5.0, 5.0, 5.0, 40.0]},
        {"box": [40.0, 5.0, 5.0, 40.0]},
        {"box": [100.0, 100.0, 140.0, 140.0]},
        {"box": [-30.0, 5.0, -10.0, 40.0]},
        {"box": [math.nan, 5.0, 40.0, 40.0]},
        {"box": [5.0, 5.0, math.inf, 40.0]},
    ],
    ids=str,
)
def test_wrong_targets(detector, wrong):
    with pytest.raises(ValueError, match=r"^targets\[0\]: expected finite boxes") as raised:
        detector([torch.rand(3, 64, 64)], targets(**wrong))
    message = str(raised.value)
    assert "\n" not in message
    assert "labels 1 to 2" in message
    assert "at 1" in message


def test_sound_targets(detector):
    losses = detector([torch.rand(3, 64, 64)], targets(box=[30.0, 30.0, 90.0, 90.0], label=2))
    assert torch.stack(list(losses.values())).isfinite().all()
    empty = {key: value[:0] for key, value in targets()[0].items()}
    losses = detector(images=[torch.rand(3, 64, 64)], targets=[empty])
    assert torch.stack(list(losses.values())).isfinite().all()


def test_shapes_are_checked_first(detector):
    with pytest.raises(ValueError, match=r"targets\[0\]: expected boxes \[n, 4\]"):
        detector(
            [torch.rand(3, 64, 64)],
            [{"boxes": torch.zeros(2, 4), "labels": torch.ones(1, dtype=torch.int64)}],
        )
    with pytest.raises(ValueError, match="targets: expected 1 as there are images, got 2"):
        detector([torch.rand(3, 64, 64)], [*targets(), *targets()])


@pytest.mark.parametrize("build", [mask_rcnn, faster_rcnn, detr])
def test_double_precision_and_evaluation_with_gradients(build):
    torch.manual_seed(0)
    network = build("botnet_tiny", num_classes=3, image_size=64).double()
    image = torch.rand(3, 64, 64, dtype=torch.float64)
    network([image], [{**targets()[0], "boxes": targets()[0]["boxes"].double()}])
    (found,) = network.eval()([image])
    assert found["boxes"].dtype == torch.float64
