"""The schema of a recipe."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from botvision.tasks.task import DEFAULT_TASK, find_task
from botvision.training.settings import TrainingSettings

Model = TypeVar("Model")
Data = TypeVar("Data")


class About(BaseModel):
    """Purpose of a recipe; people read it, nothing depends on it.

    Attributes:
        title: Title in one line.
        source: Place in the paper, such as "table 2"; None for a recipe that is not the paper's.
        command: Command that runs the recipe.
        hardware: Hardware that the recipe is meant for.
        time: Duration there, and whether it was measured or estimated.
        paper: The paper's metrics by name, in 0..1.
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


class RecipeOf(BaseModel, Generic[Model, Data]):
    """Everything that determines a training run.

    Attributes:
        name: Name of the run folder.
        about: What the recipe is for.
        task: Name of the task, see ``botvision.tasks.task``.
        model: Settings of the model; the task says which there are.
        data: Settings of the data and its augmentation; likewise.
        training: Settings of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: About | None = None
    task: str = DEFAULT_TASK
    model: Model
    data: Data
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, content: Any) -> Any:
        return {"model": {}, "data": {}, **content} if isinstance(content, dict) else content

    @property
    def kind(self) -> str:
        """Kind of the task, the folder under ``runs``, such as "instance_segmentation"."""
        settings: Any = self.model
        return find_task(self.task).kind(settings.model_dump())

    def __reduce__(self) -> tuple[Any, ...]:
        # Classes made of a generic one cannot be found by their name when they are unpickled.
        return _rebuilt, (self.model_dump(mode="json"),)


def _rebuilt(content: dict[str, Any]) -> "Recipe":
    return recipe_class(task_of(content)).model_validate(content)


Recipe = RecipeOf[Any, Any]
"""A recipe of any task."""


def task_of(content: Mapping[str, Any]) -> str:
    """Return the name of the task of a recipe's content."""
    return str(content.get("task", DEFAULT_TASK))


@cache
def recipe_class(task: str) -> type[Recipe]:
    """Return the schema of the recipes of a task.

    Raises:
        BotvisionError: If there is no such task.
    """
    found = find_task(task)
    schema: Any = RecipeOf[found.model_settings, found.data_settings]  # type: ignore[name-defined]
    return schema
