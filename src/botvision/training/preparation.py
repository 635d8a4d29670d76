"""From a task's model to what the loop steps: processes, memory format, average, optimizer."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from timm.utils import ModelEmaV3
from torch import nn, optim

from botvision.errors import BotvisionError
from botvision.tasks.task import Trainable
from botvision.training.optimization import build_optimizer
from botvision.training.recomputation import keep_statistics_of_the_forward_pass
from botvision.training.settings import TrainingSettings
from botvision.training.sharding import ShardedCopy, shard


@dataclass
class Prepared:
    """A model in training.

    Attributes:
        model: What a step calls: the model, perhaps shared with other processes.
        plain: The model itself.
        average: The moving average of the weights, if there is one.
        optimizer: Over the model's trainable parameters.
        copy: Takes the weights together for evaluation where they are sharded; else None.
    """

    model: nn.Module
    plain: nn.Module
    average: ModelEmaV3 | None
    optimizer: optim.Optimizer
    copy: ShardedCopy | None

    def evaluated(self) -> nn.Module:
        """The model that is evaluated and saved, whole and the same on all processes.

        Every process must call it.
        """
        model = self.plain if self.average is None else self.average.module
        if self.copy is not None:
            model = self.copy.gathered(model)
        for buffer in model.buffers():  # BatchNorm's, where each process has its own
            broadcast(buffer)
        return model


def prepare(task: Trainable, settings: TrainingSettings, accelerator: Accelerator) -> Prepared:
    """Make a task's model ready for steps.

    Args:
        task: Its model is moved to the device and changed in place.
        settings: The recipe's.
        accelerator: The processes.

    Raises:
        BotvisionError: If the settings contradict each other or the model.
    """
    if settings.sharded and accelerator.num_processes == 1:
        raise BotvisionError(
            "training.sharded: expected several processes, got one; start it with torchrun or "
            "leave it out"
        )
    plain = task.model.to(accelerator.device)
    if settings.channels_last and not settings.sharded:  # FSDP wants contiguous weights
        plain = plain.to(memory_format=torch.channels_last)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        plain = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    average = None
    if settings.ema_decay is not None:
        average = ModelEmaV3(plain, decay=settings.ema_decay, use_warmup=True, warmup_power=0.75)
    copy = None
    if settings.sharded:
        copy = ShardedCopy(plain)
        shard(plain)
        if average is not None:
            shard(average.module)
            average.foreach = False  # buffers are not sharded, and one call cannot take both
    if settings.gradient_checkpointing:
        backbone: Any = task.backbone
        backbone.set_grad_checkpointing(True)
        keep_statistics_of_the_forward_pass(backbone)
    if settings.compile:
        task.backbone.compile()
    optimizer = build_optimizer(plain, settings)
    task.set_training_mode(plain)
    # A kernel of one pixel is in both memory formats, and its gradient may come in either.
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    model = plain if settings.sharded else accelerator.prepare_model(plain)
    return Prepared(model, plain, average, optimizer, copy)


@contextmanager
def determinism(settings: TrainingSettings) -> Iterator[None]:
    """Let torch choose deterministic algorithms alone inside the block, where the recipe asks."""
    before = torch.are_deterministic_algorithms_enabled()
    if settings.deterministic:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
