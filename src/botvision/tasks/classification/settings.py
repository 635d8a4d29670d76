"""Settings of classifiers and their images, in recipes and weights files."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from botvision.tasks.fields import Count, Fraction, PositiveFraction


class ClassifierSettings(BaseModel):
    """The network and what regularizes it.

    Attributes:
        classifier: Name of a timm model, ours included; with or without a tag, as timm's address
            "timm/resnet50.a1_in1k", or "hf-hub:owner/name".
        classifier_arguments: More arguments of the model.
        botify: Arguments of ``botvision.botify``, which turns a ResNet into a BoTNet; None: not.
        backbone_weights: Weights that the training starts from, see
            ``botvision.weights.checkpoints.read_checkpoint``; None: random.
        image_size: Side in pixels of the square images.
        stem: "imagenet" halves twice before c2; "cifar" (a 3x3 convolution of stride 1, no
            pooling) keeps small images' resolution.
        dropout: Before the classifier.
        drop_path: Stochastic depth: probability of leaving out the deepest block.
        label_smoothing: Fraction of the target that is spread over all classes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    classifier: str
    classifier_arguments: dict[str, Any] = {}
    botify: dict[str, Any] | None = None
    backbone_weights: Path | None = None
    image_size: Count = 224
    stem: Literal["imagenet", "cifar"] = "imagenet"
    dropout: Fraction = 0.0
    drop_path: Fraction = 0.0
    label_smoothing: Fraction = 0.0


class ClassImageSettings(BaseModel):
    """Images with classes and their augmentation, through timm.

    Attributes:
        folder: Folder of class folders, tar files or WebDataset shards, or "hfds/" and the name of
            a Hugging Face data set.
        train_split: Split that is trained on.
        val_split: Split that is evaluated.
        crop_scale: Range of the area of a random crop, as a fraction of the image's; the crop is
            resized to the image size.
        crop_padding: Pixels of black around the whole image, out of which a crop of the image size
            is cut instead, as is usual for CIFAR; 0: none.
        crop_pct: Fraction of the shorter side that evaluation looks at.
        flip: Probability of a horizontal flip.
        color_jitter: Strength of random brightness, contrast and saturation.
        augmentation: timm's name of an automatic augmentation, such as "rand-m10-n2"; None: none.
        erasing: Probability of random erasing.
        mixup: Its alpha; 0 is none.
        cutmix: Its alpha; 0 is none.
        skip_bad: Leave out images that cannot be read, which takes reading all of them first;
            else the first of them ends the run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str | None = None
    train_split: str = "train"
    val_split: str = "val"
    crop_scale: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    crop_padding: Annotated[int, Field(ge=0)] = 0
    crop_pct: PositiveFraction = 0.875
    flip: Fraction = 0.5
    color_jitter: Annotated[float, Field(ge=0)] = 0.0
    augmentation: str | None = None
    erasing: Fraction = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    skip_bad: bool = False
