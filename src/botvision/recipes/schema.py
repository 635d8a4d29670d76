"""The schema of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from botvision.tasks.classification.settings import ClassifierSettings, ClassImageSettings
from botvision.tasks.detection.settings import AnyDetector, RcnnSettings
from botvision.training.settings import Fraction, Positive, TrainingSettings


class About(BaseModel):
    """What a recipe is for; people read it, nothing depends on it.

    Attributes:
        title: In a line.
        source: Where in the paper, such as "table 2"; None for recipes of ours.
        command: How it is run.
        hardware: What it is meant for.
        time: How long it takes there, and whether that was seen or estimated.
        paper: The paper's figures by metric name, in 0..1.
        measured: What we measured, and how; "not run yet" until then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    source: str | None = None
    command: str
    hardware: str
    time: str
    paper: dict[str, float] = {}
    measured: str = "not run yet"


class CocoDataSettings(BaseModel):
    """A COCO folder and its augmentation.

    Attributes:
        folder: COCO folder, or the address of one in shards; the command's --data.
        train_split: Split that is trained on.
        val_split: Split that is evaluated.
        scale_jitter: Range of the random scale; 1 fits the whole image into the input.
        flip: Probability of a horizontal flip.
        color_jitter: Strength of random brightness, contrast and saturation.
        copy_paste: Probability that a random subset of another image's instances is pasted.
        skip_bad: Leave out images that cannot be read, instead of refusing the data; the
            command's --skip-bad.
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


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: About | None = None
    training: TrainingSettings = TrainingSettings()


class DetectionRecipe(_Recipe):
    """Everything that determines the training of a detector.

    Attributes:
        name: Of the run folder.
        about: What the recipe is for.
        model: The detector.
        data: What it is trained on.
        training: How.
    """

    model: AnyDetector = RcnnSettings()
    data: CocoDataSettings = CocoDataSettings()

    @property
    def task(self) -> Literal["instance_segmentation", "detection"]:
        """Name of the task, a folder under ``runs``."""
        return "instance_segmentation" if self.model.masks else "detection"


class ClassificationRecipe(_Recipe):
    """Everything that determines the training of a classifier.

    Attributes:
        name: Of the run folder.
        about: What the recipe is for.
        model: The classifier.
        data: What it is trained on.
        training: How.
    """

    model: ClassifierSettings
    data: ClassImageSettings = ClassImageSettings()

    @property
    def task(self) -> Literal["classification"]:
        """Name of the task, a folder under ``runs``."""
        return "classification"


Recipe = DetectionRecipe | ClassificationRecipe


def recipe_class(content: Any) -> type[DetectionRecipe] | type[ClassificationRecipe]:
    """The schema of a recipe's content: a classifier's where ``model`` names one."""
    model = content.get("model") if isinstance(content, dict) else None
    named = isinstance(model, dict) and "classifier" in model
    return ClassificationRecipe if named else DetectionRecipe
