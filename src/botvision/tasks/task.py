"""What the training loop asks of a task; it knows nothing else about it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

ProgressCallback = Callable[[int, int], None]
"""Called with the number of things done and their total."""


class Task(Protocol):
    """A model's losses and evaluation over its data.

    Attributes:
        model: The network to train.
        backbone: The part of it that ``training.gradient_checkpointing`` and ``training.compile``
            are for: a timm network.
        metric_names: Metrics of ``evaluate`` that the best weights may be chosen by; the higher
            the better.
        primary_metric: The one that they are chosen by if the recipe says nothing.
        headlines: The few of ``metric_names`` that people look at first.
        notes: Lines to show when the training begins, such as where the weights come from.
        description: How to build the model again and what it is for; stored with the weights.
    """

    model: nn.Module
    backbone: nn.Module
    metric_names: tuple[str, ...]
    primary_metric: str
    headlines: tuple[str, ...]
    notes: tuple[str, ...]
    description: dict[str, Any]

    def train_data(self) -> torch.utils.data.Dataset[Any]:
        """Training items by (epoch, index); in shards if it has ``shard_lengths``."""
        ...

    def collate(self, items: Sequence[Any]) -> Any:
        """Make items a batch."""
        ...

    def set_training_mode(self, model: nn.Module) -> None:
        """Put the model into training mode, but for what stays frozen."""
        ...

    def losses(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Named scalar losses of a batch; their sum is minimized."""
        ...

    def evaluate(self, model: nn.Module, progress: ProgressCallback) -> dict[str, Any]:
        """Metrics of the validation data, the same on all processes."""
        ...

    def results(self) -> list[dict[str, Any]]:
        """What the last evaluation predicted, ready for JSON."""
        ...

    def batch_image(self, batch: Any) -> Image.Image:
        """A training batch as the model sees it."""
        ...

    def draw_data(self, folder: Path) -> None:
        """Write images of the training data, such as ``labels.png``."""
        ...

    def draw_evaluation(self, folder: Path, epoch: int, *, best: bool) -> None:
        """Write ``val_epoch<epoch>.jpg``, and charts if the evaluation is the best so far."""
        ...
