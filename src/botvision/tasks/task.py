"""Tasks: the protocol of a task, and the registry, the only place that knows which there are.

A task is one folder that says how to build, train, evaluate, predict, draw and describe its
models. A new task is a folder and a line in ``_HOMES``; a task outside this package calls
``register``.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from pydantic import BaseModel, TypeAdapter
from torch import Tensor, nn

from botvision.errors import BotvisionError, nearest
from botvision.tasks.predictor import Predictor, ResultWriter
from botvision.weights.file import Description

ProgressCallback = Callable[[int, int], None]
"""Called with the number of items done and their total."""

DEFAULT_TASK = "detection"
"""Task of a recipe that names none."""

_HOMES = {
    "detection": "botvision.tasks.detection.task",
    "classification": "botvision.tasks.classification.task",
}
_REGISTERED: dict[str, "Task"] = {}


class Trainable(Protocol):
    """A model with its data, as the training loop sees it.

    Attributes:
        model: Network to train.
        backbone: The timm network in it, for gradient checkpointing and ``torch.compile``.
        mixes_pairs: Whether images are mixed within a batch, whose number must then be even.
        metric_names: Metrics of ``evaluate`` that may choose the best weights; higher is better.
        primary_metric: The metric that chooses the best weights unless the recipe names one.
        headlines: The few of ``metric_names`` that are shown first.
        notes: Lines to show when the training begins, such as where the weights come from.
        description: Description of the model for its weights files; the recipe is set by
            whoever built it.
    """

    model: nn.Module
    backbone: nn.Module
    mixes_pairs: bool
    metric_names: tuple[str, ...]
    primary_metric: str
    headlines: tuple[str, ...]
    notes: tuple[str, ...]
    description: Description

    def train_data(self) -> torch.utils.data.Dataset[Any]:
        """Return the training items by (epoch, index); in shards if it has ``shard_lengths``."""

    def collate(self, items: Sequence[Any]) -> Any:
        """Collate items into a batch."""

    def set_training_mode(self, model: nn.Module) -> None:
        """Put the model into training mode, except for what stays frozen."""

    def losses(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Return named scalar losses of a batch; their sum is minimized."""

    def evaluate(self, model: nn.Module, progress: ProgressCallback | None) -> dict[str, Any]:
        """Return the metrics of the validation data, the same on all processes."""

    def results(self) -> list[dict[str, Any]]:
        """Return the predictions of the last evaluation, ready for JSON."""

    def batch_image(self, batch: Any) -> Image.Image:
        """Draw a training batch as the model sees it."""

    def draw_data(self, folder: Path) -> None:
        """Write figures of the training data, such as ``labels.png``."""

    def draw_evaluation(self, folder: Path, epoch: int, *, best: bool) -> None:
        """Write ``val_epoch<epoch>.jpg``, and charts if the evaluation is the best so far."""

    def example(self, model: nn.Module) -> tuple[Predictor[Any], Image.Image, tuple[int, int]]:
        """Return what attention maps of a model with attention are drawn of.

        Returns:
            The model's predictor, a validation image, always the same, and a pixel of it, (x, y).
        """


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation; a task refuses those it has no use for.

    Attributes:
        split: Split of the data.
        batch_size: Images per batch; None: as in the training.
        tta: Whether to average over horizontally flipped images.
        skip_bad: Whether to leave out images that cannot be read, and count them.
        output: Folder for figures; None: no figures.
        note: Called with lines that are worth reading once; None: they are not shown.
    """

    split: str
    batch_size: int | None = None
    tta: bool = False
    skip_bad: bool = False
    output: Path | None = None
    note: Callable[[str], None] | None = None


@dataclass(frozen=True)
class MetricTable:
    """Metrics as the rows of a table.

    Attributes:
        columns: Heading of each column of values.
        rows: Name and values of each metric; None where there is no value.
        per_class: Likewise for each class.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str, tuple[float | None, ...]]]
    per_class: list[tuple[str, tuple[float | None, ...]]]


@dataclass(frozen=True)
class Card:
    """The task's part of a model card on the Hugging Face Hub.

    Attributes:
        pipeline_tag: Task as the Hub names it.
        title: Network in a few words.
        usage: Python code that uses the model; ``{where}`` stands for the repository.
        config: Content of config.json.
    """

    pipeline_tag: str
    title: str
    usage: str
    config: dict[str, Any]


class Task(Protocol):
    """A task: its settings, training, evaluation and prediction.

    Attributes:
        name: Name in recipes and weights files.
        headlines: Metrics that are shown first, the primary one before the others.
        lower_is_better: Metrics of which lower values are better.
        model_settings: Type of a recipe's ``model``, for pydantic.
        data_settings: Type of a recipe's ``data``; it has the fields ``folder`` and ``val_split``.
        data_kind: The data that is expected, for messages, such as "a COCO folder".
    """

    name: str
    headlines: tuple[str, ...]
    lower_is_better: frozenset[str]
    model_settings: Any
    data_settings: type[BaseModel]
    data_kind: str

    def kind(self, model: Mapping[str, Any]) -> str:
        """Return the kind of task of a recipe's ``model``, a folder under ``runs``."""

    def title(self, model: Mapping[str, Any]) -> str:
        """Return a recipe's network in a few words."""

    def model_keys(self, model: Mapping[str, Any]) -> frozenset[str]:
        """Return the keys that a recipe's ``model`` may have, given those it has."""

    def build(self, recipe: Any) -> Trainable:
        """Build the data and the model of a recipe; a BotvisionError if either cannot be used."""

    def predictor(
        self,
        path: Path,
        description: Description,
        *,
        device: torch.device,
        image_size: int | None = None,
    ) -> Predictor[Any]:
        """Build the predictor of a weights file.

        Args:
            path: The weights file.
            description: Its description.
            device: Device that the model runs on.
            image_size: Side of the input in pixels; None: as in the training.

        Raises:
            BotvisionError: If the file describes another kind of model.
        """

    def evaluate(
        self,
        predictor: Any,
        data: str | Path,
        options: EvaluationOptions,
        progress: ProgressCallback | None = None,
    ) -> dict[str, Any]:
        """Return the metrics of a predictor on a data folder.

        Raises:
            BotvisionError: If the data cannot be used, its classes are others, or an option does
                not apply.
        """

    def writer(
        self, predictor: Any, output: Path, names: Sequence[Path], save: Sequence[str] | None = None
    ) -> ResultWriter[Any]:
        """Return a writer of the predictor's results for images of these names.

        Args:
            predictor: Predictor of the results.
            output: Folder to write to; made when something is written.
            names: Paths of all images below the folder they have in common.
            save: What to write besides ``predictions.json``; None: the task's default.

        Raises:
            BotvisionError: If the task cannot write what is asked for.
        """

    def tabulate(self, metrics: Mapping[str, Any]) -> MetricTable:
        """Return metrics as the rows of a table."""

    def card(self, description: Description, path: Path) -> Card:
        """Return what a model card says about a model of this task.

        Raises:
            BotvisionError: If the weights file at ``path`` describes another kind of model.
        """


def register(task: Task) -> None:
    """Register a task from outside this package.

    Raises:
        ValueError: If the name is taken by another task.
    """
    if task.name in _HOMES or _REGISTERED.get(task.name, task) is not task:
        raise ValueError(f"task: expected a new name, got {task.name!r}, which is registered")
    _REGISTERED[task.name] = task


def task_names() -> list[str]:
    """Return the names of the registered tasks."""
    return [*_HOMES, *_REGISTERED]


def find_task(name: str) -> Task:
    """Return a task by its name.

    Raises:
        BotvisionError: If there is no such task.
    """
    if name in _HOMES:
        task: Task = importlib.import_module(_HOMES[name]).TASK
        return task
    if name not in _REGISTERED:
        known = task_names()
        raise BotvisionError(
            f"task: expected one of {', '.join(known)}, got {name!r}{nearest(str(name), known)}"
        )
    return _REGISTERED[name]


def settings_of(path: Path, description: Description, what: str) -> Any:
    """Return the settings of the model in a weights file; unknown keys are ignored.

    Args:
        path: The weights file, for the error.
        description: Its description.
        what: The model in one word, for the error.

    Raises:
        BotvisionError: If the description is not one of such a model.
    """
    task = find_task(description.task)
    known = task.model_keys(description.model)
    content = {key: value for key, value in description.model.items() if key in known}
    try:
        return TypeAdapter(task.model_settings).validate_python(content)
    except ValueError as error:
        raise BotvisionError(
            f"{path}: expected the weights of a {what}, got a description of something else "
            f"({' '.join(str(error).split())})"
        ) from error
