"""The schema of a recipe."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from botvision.detection.settings import AnyDetector, RcnnSettings
from botvision.training.settings import TrainingSettings


class DataSettings(BaseModel):
    """The data and its augmentation.

    Attributes:
        folder: COCO folder; the command's --data.
        scale_jitter: Range of the random scale; 1 fits the whole image into the input.
        flip: Probability of a horizontal flip.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path | None = None
    scale_jitter: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.8, 1.25)
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5


class Recipe(BaseModel):
    """Everything that determines a run.

    Attributes:
        name: Of the run folder.
        model: The detector.
        data: What it is trained on.
        training: How.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    model: AnyDetector = RcnnSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()

    @property
    def task(self) -> str:
        """Name of the task, a folder under ``runs``."""
        return "instance_segmentation" if self.model.masks else "detection"
