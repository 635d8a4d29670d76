"""A task's model made ready for training: device, memory format, processes, optimizer."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import nn

from botvision.errors import BotvisionError
from botvision.tasks.task import Trainable
from botvision.training.optimizer import build_optimizer
from botvision.training.parallel import shard
from botvision.training.settings import TrainingSettings
from botvision.training.state import TrainState


def prepare(task: Trainable, settings: TrainingSettings, accelerator: Accelerator) -> TrainState:
    """Make a task's model ready for training steps.

    Args:
        task: Task whose model is moved to the device and changed in place.
        settings: Training settings of the recipe.
        accelerator: Device and processes to train on.

    Raises:
        BotvisionError: If the settings contradict each other or the model.
    """
    if settings.sharded and accelerator.num_processes == 1:
        raise BotvisionError(
            "training.sharded: expected several processes, got one; start it with torchrun or "
            "leave it out"
        )
    plain = task.model.to(accelerator.device)
    if settings.channels_last and not settings.sharded:  # FSDP needs contiguous weights
        plain = plain.to(memory_format=torch.channels_last)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        plain = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    average = None
    if settings.ema_decay is not None:
        average = ModelEmaV3(plain, decay=settings.ema_decay, use_warmup=True, warmup_power=0.75)
    copy = None
    if settings.sharded:
        copy = deepcopy(plain)
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
    return TrainState(model, plain, average, optimizer, copy)


@contextmanager
def determinism(settings: TrainingSettings) -> Iterator[None]:
    """Restrict torch to deterministic algorithms inside the block, if the settings ask for it."""
    before = torch.are_deterministic_algorithms_enabled()
    if settings.deterministic:
        # Read by cuBLAS when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def keep_statistics_of_the_forward_pass(network: nn.Module) -> None:
    """Make gradient checkpointing count each batch once in BatchNorm's running statistics.

    A checkpointed block runs a second time in the backward pass, and BatchNorm would otherwise
    update its running mean and variance again.

    Args:
        network: Network whose BatchNorm layers get hooks.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.register_forward_pre_hook(_hold)
            # Always: recomputation leaves a layer by an exception when it has all that it needs.
            module.register_forward_hook(_release, always_call=True)


def _hold(module: Any, _inputs: Any) -> None:
    in_backward_pass = torch._C._current_graph_task_id() != -1
    if module.training and in_backward_pass:
        module.held = module.momentum
        module.momentum = 0.0  # the statistics still go in: the pass has to save the same tensors


def _release(module: Any, _inputs: Any, _output: Any) -> None:
    if "held" in vars(module):
        module.momentum = module.held
        module.num_batches_tracked.sub_(1)
        del module.held
