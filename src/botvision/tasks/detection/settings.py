"""Settings of detectors and their data, in recipes and weights files."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from botvision.tasks.fields import Count, Fraction, Positive


class DetectorSettings(BaseModel):
    """Settings that all detectors share.

    Attributes:
        detector: Which detector.
        backbone: Name of a timm model, ours included; with or without a tag, as timm's address
            "timm/resnet50.a1_in1k", or "hf-hub:owner/name".
        backbone_arguments: More arguments of the backbone.
        backbone_weights: Weights whose backbone the training starts from, see
            ``botvision.weights.checkpoints.read_checkpoint``; None: random.
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
    batch_norm_momentum: Fraction | None = None
    batch_norm_eps: Annotated[float, Field(gt=0)] | None = None

    @property
    def masks(self) -> bool:
        """Whether the detector predicts masks."""
        return self.detector == "mask_rcnn"

    @property
    def pads_by_itself(self) -> bool:
        """Whether training images come without padding, for the detector to pad and mask."""
        return self.detector == "detr"


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
    rpn_positive_fraction: Fraction = 0.5
    box_batch_size_per_image: Count = 512
    box_positive_fraction: Fraction = 0.25
    box_nms_thresh: Fraction = 0.5
    box_score_thresh: Fraction = 0.05
    box_detections_per_img: Count = 100


class DetrSettings(DetectorSettings):
    """The arguments of ``detr``, which explains them."""

    detector: Literal["detr"] = "detr"
    num_queries: Count = 100
    hidden_dim: Count = 256
    num_heads: Count = 8
    dim_feedforward: Count = 2048
    encoder_layers: Count = 6
    decoder_layers: Count = 6
    dropout: Fraction = 0.1
    auxiliary_loss: bool = True


class CocoDataSettings(BaseModel):
    """A COCO folder and its augmentation.

    Attributes:
        folder: COCO folder, or the address of one in shards.
        train_split: Split that is trained on.
        val_split: Split that is evaluated.
        scale_jitter: Range of the random scale; 1 fits the whole image into the input.
        flip: Probability of a horizontal flip.
        color_jitter: Strength of random brightness, contrast and saturation.
        copy_paste: Probability that a random subset of another image's instances is pasted.
        skip_bad: Whether to leave out images that cannot be read, instead of refusing the data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str | None = None
    train_split: str = "train"
    val_split: str = "val"
    scale_jitter: tuple[Positive, Positive] = (0.8, 1.25)
    flip: Fraction = 0.5
    color_jitter: Annotated[float, Field(ge=0)] = 0.0
    copy_paste: Fraction = 0.0
    skip_bad: bool = False


DETECTORS: dict[str, type[DetectorSettings]] = {
    "mask_rcnn": RcnnSettings,
    "faster_rcnn": RcnnSettings,
    "detr": DetrSettings,
}
"""The settings of each detector, by its name."""


def _with_detector(content: Any) -> Any:
    return {"detector": "mask_rcnn", **content} if isinstance(content, dict) else content


AnyDetector = Annotated[
    Annotated[RcnnSettings | DetrSettings, Field(discriminator="detector")],
    BeforeValidator(_with_detector),
]
"""The settings that ``detector`` names; those of Mask R-CNN if it names none."""
