"""What recipes and weights files say about a detector."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class DetectorSettings(BaseModel):
    """What every detector is told.

    Attributes:
        detector: Which detector.
        backbone: Name of a timm model, ours included.
        backbone_arguments: More arguments of the backbone.
        backbone_weights: Weights file whose backbone the training starts from; None: random.
        image_size: Side in pixels of the square that images are fitted into.
        batch_norm: "synchronized" trains BatchNorm in backbone and pyramid with the statistics of
            all GPUs; "frozen" keeps what comes from the backbone as it is, in all blocks that come
            from it whole, and trains the rest.
        batch_norm_momentum: Share of a batch's statistics in the running ones; None: the
            network's own.
        batch_norm_eps: Added to the variance; None: the network's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str
    backbone: str = "botnet50"
    backbone_arguments: dict[str, Any] = {}
    backbone_weights: Path | None = None
    image_size: Count = 1024
    batch_norm: Literal["synchronized", "frozen"] = "synchronized"
    batch_norm_momentum: Share | None = None
    batch_norm_eps: Annotated[float, Field(gt=0)] | None = None

    @property
    def masks(self) -> bool:
        """Whether the detector predicts masks."""
        return False

    @property
    def pads_by_itself(self) -> bool:
        """Whether training images come without padding, for the detector to pad and mask."""
        return False


class RcnnSettings(DetectorSettings):
    """The arguments of ``mask_rcnn`` or ``faster_rcnn``, which explain them."""

    detector: Literal["mask_rcnn", "faster_rcnn"] = "mask_rcnn"
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


class DetrSettings(DetectorSettings):
    """The arguments of ``detr``, which explains them."""

    detector: Literal["detr"] = "detr"
    num_queries: Count = 100
    hidden_dim: Count = 256
    num_heads: Count = 8
    dim_feedforward: Count = 2048
    encoder_layers: Count = 6
    decoder_layers: Count = 6
    dropout: Share = 0.1
    auxiliary_loss: bool = True

    @property
    def pads_by_itself(self) -> bool:
        """Whether training images come without padding, for the detector to pad and mask."""
        return True


DETECTORS: dict[str, type[DetectorSettings]] = {
    "mask_rcnn": RcnnSettings,
    "faster_rcnn": RcnnSettings,
    "detr": DetrSettings,
}
"""The settings of each detector, by its name."""


def _detector_of(content: Any) -> str:
    if isinstance(content, DetectorSettings):
        return content.detector
    return str(content.get("detector", "mask_rcnn")) if isinstance(content, dict) else "mask_rcnn"


AnyDetector = Annotated[
    Annotated[RcnnSettings, Tag("mask_rcnn")]
    | Annotated[RcnnSettings, Tag("faster_rcnn")]
    | Annotated[DetrSettings, Tag("detr")],
    Discriminator(_detector_of),
]
"""The settings that ``detector`` names; of Mask R-CNN where it names none."""


def read_detector_settings(content: Any) -> RcnnSettings | DetrSettings:
    """Settings from what a weights file or a recipe holds.

    Raises:
        pydantic.ValidationError: If a key or value is wrong.
    """
    settings: RcnnSettings | DetrSettings = TypeAdapter(AnyDetector).validate_python(content)
    return settings
