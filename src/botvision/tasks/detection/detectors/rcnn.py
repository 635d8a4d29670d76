"""Mask R-CNN and Faster R-CNN over BoTNet feature pyramids, as torchvision detectors."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from botvision.precision import widened
from botvision.tasks.detection.detectors.backbone import LEVELS, PyramidBackbone
from botvision.tasks.detection.detectors.roi_align import PyramidRoIAlign
from botvision.tasks.detection.detectors.targets import check_targets
from botvision.tasks.detection.detectors.transform import DetectorTransform

_STRIDES = (4, 8, 16, 32, 64)
_BOX_SIZE, _MASK_SIZE = 7, 14
_LOWERED = threading.Lock()
_Detector = TypeVar("_Detector", FasterRCNN, MaskRCNN)


def mask_rcnn(
    backbone: str,
    num_classes: int,
    *,
    mask_head_channels: int = 256,
    mask_head_layers: int = 4,
    sampling_ratio: int = 2,
    **options: Any,
) -> MaskRCNN:
    """Mask R-CNN over p2..p6, the paper's detector (tables 2 to 8).

    Images are a list of float tensors [3, H, W] in 0..1 of any size. Boxes are x1 y1 x2 y2 in
    pixels of the input image. Labels run from 1; 0 is the background.

    Args:
        backbone: Name of a timm model, including botvision's.
        num_classes: Number of classes including the background.
        mask_head_channels: Width of the mask head.
        mask_head_layers: Number of its 3x3 convolutions before the deconvolution.
        sampling_ratio: Number of points sampled along each side of a pooling bin.
        options: Options of ``faster_rcnn``.

    Returns:
        A torchvision ``MaskRCNN``.

    Raises:
        ValueError: If the backbone is unknown.
    """
    network, arguments = _common(backbone, num_classes, sampling_ratio=sampling_ratio, **options)
    heads = (mask_head_channels,) * mask_head_layers
    arguments |= {
        "mask_roi_pool": PyramidRoIAlign(LEVELS, _MASK_SIZE, sampling_ratio),
        "mask_head": MaskRCNNHeads(network.out_channels, heads, 1),
        "mask_predictor": MaskRCNNPredictor(mask_head_channels, mask_head_channels, num_classes),
    }
    return _adapted(MaskRCNN(network, **arguments))


def faster_rcnn(backbone: str, num_classes: int, **options: Any) -> FasterRCNN:
    """Faster R-CNN over p2..p6.

    Inputs and outputs as ``mask_rcnn``, without masks.

    Args:
        backbone: Name of a timm model, including botvision's.
        num_classes: Number of classes including the background.
        options: ``image_size`` (1024): side that the longer side of an image is resized to;
            ``fpn_channels`` (256); ``box_head_width`` (1024); ``anchor_scale`` (8): side of a
            level's anchors as a multiple of its stride; ``sampling_ratio`` (2);
            ``backbone_arguments``; and torchvision's ``rpn_...`` and ``box_...`` arguments.

    Returns:
        A torchvision ``FasterRCNN``.

    Raises:
        ValueError: If the backbone is unknown.
    """
    network, arguments = _common(backbone, num_classes, **options)
    return _adapted(FasterRCNN(network, **arguments))


@contextlib.contextmanager
def lowered_threshold(detector: nn.Module, threshold: float | None) -> Iterator[None]:
    """Let a detector give detections whose scores are below its own limit inside the block.

    Args:
        detector: Mask R-CNN or Faster R-CNN; another one has no limit, and stays as it is.
        threshold: Smallest score to give; None, or more than the detector's own: no change.
    """
    heads: Any = getattr(detector, "roi_heads", None)
    if heads is None or threshold is None or threshold >= heads.score_thresh:
        yield
        return
    # One thread at a time, so that what is restored is the detector's own.
    with _LOWERED:
        own = heads.score_thresh
        # torchvision leaves out scores that are equal to the limit.
        heads.score_thresh = float(np.nextafter(np.float32(threshold), np.float32(-1)))
        try:
            yield
        finally:
            heads.score_thresh = own


def _common(
    backbone: str,
    num_classes: int,
    *,
    image_size: int = 1024,
    fpn_channels: int = 256,
    box_head_width: int = 1024,
    anchor_scale: float = 8,
    sampling_ratio: int = 2,
    backbone_arguments: dict[str, Any] | None = None,
    **torchvision_arguments: Any,
) -> tuple[PyramidBackbone, dict[str, Any]]:
    network = PyramidBackbone(
        backbone, image_size=image_size, channels=fpn_channels, arguments=backbone_arguments
    )
    anchors = AnchorGenerator(
        sizes=tuple((anchor_scale * stride,) for stride in _STRIDES),
        aspect_ratios=((0.5, 1.0, 2.0),) * len(_STRIDES),
    )
    arguments = {
        "min_size": image_size,
        "max_size": image_size,
        "image_mean": list(network.mean),
        "image_std": list(network.std),
        "rpn_anchor_generator": anchors,
        "box_roi_pool": PyramidRoIAlign(LEVELS, _BOX_SIZE, sampling_ratio),
        "box_head": TwoMLPHead(fpn_channels * _BOX_SIZE**2, box_head_width),
        "box_predictor": FastRCNNPredictor(box_head_width, num_classes),
        **torchvision_arguments,
    }
    return network, arguments


def _adapted(detector: _Detector) -> _Detector:
    """Replace torchvision's transform, and keep half precision inside the network.

    torchvision makes anchors and decodes boxes in the dtype of the heads' outputs; bfloat16 has
    8 bits of precision, which is half a pixel at 128 and four at 1024.
    """
    theirs, heads = detector.transform, detector.roi_heads
    # A batch is padded to multiples of it: to the whole square where the backbone takes no other.
    divisor = theirs.max_size if detector.backbone.has_one_size else theirs.size_divisible
    detector.transform = DetectorTransform(
        theirs.min_size,
        theirs.max_size,
        theirs.image_mean,
        theirs.image_std,
        size_divisible=divisor,
    )
    widening = [detector.backbone, detector.rpn.head, heads.box_predictor]
    if heads.has_mask():
        widening.append(heads.mask_predictor)
    for module in widening:
        module.register_forward_hook(_widen_outputs)
    detector.register_forward_pre_hook(_check_targets, with_kwargs=True)
    return detector


def _check_targets(detector: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    images, targets = _images_and_targets(*inputs, **named)
    if detector.training and targets is not None:  # torchvision says that they are missing
        # Read at each call, for users put heads for their own classes there.
        scores = getattr(detector.get_submodule("roi_heads.box_predictor"), "cls_score", None)
        check_targets(images, targets, getattr(scores, "out_features", None))


def _images_and_targets(images: Any, targets: Any = None) -> tuple[Any, Any]:
    return images, targets


def _widen_outputs(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    if isinstance(output, Tensor):
        return widened(output)
    if isinstance(output, dict):
        return type(output)((name, widened(level)) for name, level in output.items())
    return type(output)(_widen_outputs(_module, _inputs, part) for part in output)
