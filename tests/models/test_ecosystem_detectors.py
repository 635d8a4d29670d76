"""Plain torchvision detectors over our networks, built as a user of torchvision would."""

from collections import OrderedDict

import pytest
import timm
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from botvision.tasks.detection.detectors.backbone import PyramidBackbone

SIDE, WIDTH = 96, 16
NARROW = {"img_size": SIDE, "layers": (1, 1, 1, 2), "zero_init_last": False}


class TimmPyramid(nn.Module):
    """What the guides to torchvision write for a timm network."""

    def __init__(self, **options):
        super().__init__()
        self.body = timm.create_model(
            "botnet_tiny", features_only=True, out_indices=(1, 2, 3, 4), **NARROW, **options
        )
        self.fpn = FeaturePyramidNetwork(
            self.body.feature_info.channels(), WIDTH, extra_blocks=LastLevelMaxPool()
        )
        self.out_channels = WIDTH

    def forward(self, images):
        return self.fpn(OrderedDict((str(n), f) for n, f in enumerate(self.body(images))))


def timm_pyramid(**options):
    return TimmPyramid(**options)


def torchvision_pyramid(**options):
    """torchvision's own wrapper, which takes the children of a whole classifier in order."""
    model = timm.create_model("botnet_tiny", **NARROW, **options)
    layers = {f"layer{n + 1}": str(n) for n in range(4)}
    return BackboneWithFPN(model, layers, [128, 256, 512, 1024], WIDTH)


def our_pyramid(**options):
    arguments = {**NARROW, **options}
    side = arguments.pop("img_size")
    backbone = PyramidBackbone("botnet_tiny", image_size=side, channels=WIDTH, arguments=arguments)
    forward = backbone.forward
    # torchvision's default pooler looks for its own names.
    names = ("0", "1", "2", "3", "pool")
    backbone.forward = lambda x: OrderedDict(zip(names, forward(x).values(), strict=True))
    return backbone


PYRAMIDS = {"timm": timm_pyramid, "torchvision": torchvision_pyramid, "ours": our_pyramid}


def anchors():
    return AnchorGenerator(tuple((side,) for side in (16, 32, 48, 64, 96)), ((1.0,),) * 5)


def faster_rcnn(backbone):
    return FasterRCNN(
        backbone, 3, min_size=SIDE, max_size=SIDE, rpn_anchor_generator=anchors(), **REGIONS
    )


def mask_rcnn(backbone):
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
    return MaskRCNN(
        backbone,
        3,
        min_size=SIDE,
        max_size=SIDE,
        rpn_anchor_generator=anchors(),
        mask_roi_pool=pool,
        **REGIONS,
    )


def retinanet(backbone):
    return RetinaNet(backbone, 3, min_size=SIDE, max_size=SIDE, anchor_generator=anchors())


REGIONS = {"rpn_pre_nms_top_n_train": 50, "rpn_post_nms_top_n_train": 20}
DETECTORS = {"Faster R-CNN": faster_rcnn, "Mask R-CNN": mask_rcnn, "RetinaNet": retinanet}


def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 64, 96, generator=generator), torch.rand(3, 90, 70, generator=generator)]


def targets():
    made = []
    for image in images():
        boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 60.0, 50.0]])
        masks = torch.zeros(2, *image.shape[1:], dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        made.append({"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks})
    return made


@pytest.fixture
def assert_learns(assert_gradients):
    """A function that takes a few steps and sees the loss fall.

    More than one step, since the regions that are looked at change with the parameters.
    """

    def check(detector):
        optimizer = torch.optim.Adam(detector.train().parameters(), lr=1e-3)
        losses = []
        for _ in range(4):
            torch.manual_seed(3)  # regions are sampled
            optimizer.zero_grad()
            loss = sum(detector(images(), targets()).values())
            assert_gradients(detector.backbone, loss)
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]

    return check


@pytest.mark.parametrize("pyramid", PYRAMIDS.values(), ids=PYRAMIDS)
def test_pyramid(pyramid, variant):
    torch.manual_seed(0)
    levels = pyramid(**variant)(torch.rand(2, 3, SIDE, SIDE))
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    last = variant.get("output_stride", 32)
    strides = (4, 8, 16, last, 2 * last)
    for level, stride in zip(levels.values(), strides, strict=True):
        assert level.shape == (2, WIDTH, -(-SIDE // stride), -(-SIDE // stride))


@pytest.mark.parametrize("pyramid", PYRAMIDS.values(), ids=PYRAMIDS)
def test_faster_rcnn(pyramid, variant, assert_learns):
    torch.manual_seed(0)
    detector = faster_rcnn(pyramid(**variant))
    assert_learns(detector)
    for image, found in zip(images(), detector.eval()(images()), strict=True):
        assert found["boxes"].shape == (len(found["scores"]), 4)
        height, width = image.shape[1:]
        assert found["boxes"].amin() >= 0
        assert (found["boxes"].amax(0) <= torch.tensor([width, height, width, height])).all()


@pytest.mark.parametrize("make", [mask_rcnn, retinanet], ids=["Mask R-CNN", "RetinaNet"])
def test_other_detectors(make, assert_learns):
    torch.manual_seed(0)
    detector = make(timm_pyramid())
    assert_learns(detector)
    for found in detector.eval()(images()):
        assert {"boxes", "scores", "labels"} <= set(found)


def test_botnet50(assert_learns):
    torch.manual_seed(0)
    model = timm.create_model("botnet50", zero_init_last=False)
    layers = {f"layer{n + 1}": str(n) for n in range(4)}
    backbone = BackboneWithFPN(model, layers, [256, 512, 1024, 2048], WIDTH)
    detector = faster_rcnn(backbone)
    assert_learns(detector)
