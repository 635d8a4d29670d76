"""Fully sharded data parallelism (FSDP): weights, gradients and optimizer state split up."""

from typing import Any

import torch
from torch import nn, optim
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

_WHOLE = StateDictOptions(full_state_dict=True)
_WHOLE_ON_CPU = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(model: nn.Module) -> None:
    """Split a model's parameters over the processes, in place.

    Submodules of a few million parameters or more are gathered one at a time when they are needed,
    the rest of the model at once.
    """
    for module in _units(model):
        fully_shard(module)
    fully_shard(model)


def _units(model: nn.Module) -> list[nn.Module]:
    """Submodules that are worth a collective of their own."""
    units = []
    for child in model.children():
        is_list = isinstance(child, nn.ModuleList | nn.ModuleDict)
        if is_list or _size(child) > 16e6:
            units += _units(child)
        if not is_list and _size(child) > 4e6:
            units.append(child)
    return units


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def gather(source: nn.Module, copy: nn.Module) -> None:
    """Load the weights of a sharded model into an unsharded one; every process must call it."""
    copy.load_state_dict(get_model_state_dict(source, options=_WHOLE))


def whole_state(model: nn.Module, optimizer: optim.Optimizer | None = None) -> dict[str, Any]:
    """Return the unsharded state of a model, or of its optimizer, on the main process's CPU.

    Every process must call it; all but the main one get an empty dictionary.
    """
    if optimizer is None:
        return get_model_state_dict(model, options=_WHOLE_ON_CPU)
    return get_optimizer_state_dict(model, optimizer, options=_WHOLE_ON_CPU)


def load_whole_state(
    state: dict[str, Any], model: nn.Module, optimizer: optim.Optimizer | None = None
) -> None:
    """Distribute what ``whole_state`` returned; every process must call it."""
    with torch.no_grad():
        if optimizer is None:
            set_model_state_dict(model, state, options=_WHOLE)
        else:
            set_optimizer_state_dict(model, optimizer, state, options=_WHOLE)
