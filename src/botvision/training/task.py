"""What the training loop asks of a task; it knows nothing else about it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

Progress = Callable[[int, int], None]
"""Called with the number of things done and their total."""


class Task(Protocol):
    """A model's losses and evaluation over its data.

    Attributes:
        model: The network to train.
        primary_metric: The metric of ``evaluate`` by which the best weights are chosen.
        description: How to build the model again and what it is for; stored with the weights.
    """

    model: nn.Module
    primary_metric: str
    description: dict[str, Any]

    def train_data(self) -> torch.utils.data.Dataset[Any]:
        """Training items by (epoch, index)."""
        ...

    def collate(self, items: Sequence[Any]) -> Any:
        """Make items a batch."""
        ...

    def losses(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Named scalar losses of a batch; their sum is minimised."""
        ...

    def evaluate(self, model: nn.Module, progress: Progress) -> dict[str, Any]:
        """Metrics of the validation data, the same on all processes."""
        ...

    def results(self) -> list[dict[str, Any]]:
        """What the last evaluation predicted, ready for JSON."""
        ...

    def batch_picture(self, batch: Any) -> Image.Image:
        """A training batch as the model sees it."""
        ...

    def validation_picture(self) -> Image.Image:
        """Predictions of the last evaluation beside the truth."""
        ...
