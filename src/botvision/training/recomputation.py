"""Gradient checkpointing that leaves BatchNorm's running statistics as they would be without."""

from typing import Any

import torch
from torch import nn


def keep_statistics_of_the_forward_pass(network: nn.Module) -> None:
    """Count each batch once in the running statistics.

    A checkpointed block runs a second time in the backward pass, and BatchNorm would take the
    batch into its running mean and variance again.

    Args:
        network: Its BatchNorm layers get hooks.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.register_forward_pre_hook(_hold)
            # Always: recomputation leaves a layer by an exception when it has all that it needs.
            module.register_forward_hook(_release, always_call=True)


def _hold(module: Any, _inputs: Any) -> None:
    if module.training and _in_backward_pass():
        module.held = module.momentum
        module.momentum = 0.0  # the statistics still go in: the pass has to save the same tensors


def _release(module: Any, _inputs: Any, _output: Any) -> None:
    if "held" in vars(module):
        module.momentum = module.held
        module.num_batches_tracked.sub_(1)
        del module.held


def _in_backward_pass() -> bool:
    return torch._C._current_graph_task_id() != -1
