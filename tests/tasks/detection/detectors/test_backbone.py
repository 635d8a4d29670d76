"""Backbones: networks of one size, and inputs that a detector does not have."""

import pytest
import torch

from botvision.tasks.detection.detectors.backbone import DeepestMap, PyramidBackbone
from botvision.tasks.detection.detectors.rcnn import faster_rcnn


@pytest.mark.parametrize("name", ["botnet26t_256", "swin_tiny_patch4_window7_224"])
def test_networks_of_one_size_are_built_for_it(name):
    body = PyramidBackbone(name, image_size=64, channels=8)
    assert body(torch.zeros(2, 3, 64, 64))["p2"].shape == (2, 8, 16, 16)


@pytest.mark.parametrize("name", ["botnet26t_256", "swin_tiny_patch4_window7_224"])
def test_networks_of_one_size_take_images_of_any(name):
    torch.manual_seed(0)
    detector = faster_rcnn(name, 2, image_size=64, fpn_channels=8, box_head_width=8).eval()
    with torch.no_grad():
        for size in ((64, 32), (20, 90)):
            assert len(detector([torch.rand(3, *size)])) == 1


@pytest.mark.parametrize("build", [PyramidBackbone, DeepestMap])
def test_a_size_that_a_network_does_not_take(build):
    with pytest.raises(ValueError, match=r"takes no images of 64 x 64 pixels; .* such as 256"):
        build("halo2botnet50ts_256", image_size=64)


@pytest.mark.parametrize("build", [PyramidBackbone, DeepestMap])
def test_images_have_three_channels(build):
    with pytest.raises(ValueError, match=r"in_chans: expected 3 \(RGB\), got 1"):
        build("botnet_tiny", image_size=64, arguments={"in_chans": 1})
