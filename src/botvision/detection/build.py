"""Detectors from the settings of a recipe or of a weights file."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from botvision.detection.detectors import faster_rcnn, mask_rcnn
from botvision.errors import BotvisionError
from botvision.models.weights import load_tensors, read_tensors

_DETECTORS = {"mask_rcnn": mask_rcnn, "faster_rcnn": faster_rcnn}
_MASK_ONLY = {"mask_head_channels", "mask_head_layers"}
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class DetectorSettings(BaseModel):
    """A detector: the arguments of ``mask_rcnn`` or ``faster_rcnn``, which explain them.

    Attributes:
        detector: Which of the two.
        trunk: Weights file whose backbone the training starts from; None: random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: Literal["mask_rcnn", "faster_rcnn"] = "mask_rcnn"
    backbone: str = "botnet50"
    backbone_arguments: dict[str, Any] = {}
    trunk: Path | None = None
    image_size: Count = 1024
    fpn_channels: Count = 256
    anchor_scale: Annotated[float, Field(gt=0)] = 8
    sampling_ratio: Count = 2
    box_head_width: Count = 1024
    mask_head_channels: Count = 256
    mask_head_layers: Count = 4
    rpn_pre_nms_top_n_train: Count = 2000
    rpn_pre_nms_top_n_test: Count = 1000
    rpn_post_nms_top_n_train: Count = 1000
    rpn_post_nms_top_n_test: Count = 1000
    rpn_batch_size_per_image: Count = 256
    rpn_positive_fraction: Share = 0.5
    box_batch_size_per_image: Count = 512
    box_positive_fraction: Share = 0.25
    box_nms_thresh: Share = 0.5
    box_score_thresh: Share = 0.05
    box_detections_per_img: Count = 100

    @property
    def masks(self) -> bool:
        """Whether the detector predicts masks."""
        return self.detector == "mask_rcnn"


def build_detector(settings: DetectorSettings, num_classes: int) -> nn.Module:
    """A detector with random weights.

    Args:
        settings: Which, and its arguments.
        num_classes: Classes including the background.

    Raises:
        BotvisionError: If the backbone is unknown or does not take its arguments.
    """
    left_out = {"detector", "trunk"} | (set() if settings.masks else _MASK_ONLY)
    arguments = settings.model_dump(exclude=left_out)
    try:
        return _DETECTORS[settings.detector](num_classes=num_classes, **arguments)
    except (ValueError, TypeError, RuntimeError, IndexError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise BotvisionError(f"model.backbone {settings.backbone}: {reason}") from error


def load_trunk(detector: nn.Module, path: Path) -> None:
    """Start a detector's backbone from a trained detector's or classifier's.

    The feature pyramid and the heads stay as they are.

    Raises:
        BotvisionError: If the file's backbone is another one.
    """
    tensors = read_tensors(path, "backbone.body.") or read_tensors(path)
    body: Any = detector.get_submodule("backbone.body")
    known = body.state_dict().keys()
    # A classifier's head is the one part that a backbone does without.
    tensors = {k: v for k, v in tensors.items() if k in known or not k.startswith("fc.")}
    load_tensors(body, tensors, path)
