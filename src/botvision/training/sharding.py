"""Weights, gradients and optimizer state split over the processes (FSDP)."""

from copy import deepcopy
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

    Every part of the model with a few million parameters or more is gathered by itself when it is
    needed, the rest at once.
    """
    for module in _parts(model):
        fully_shard(module)
    fully_shard(model)


def _parts(model: nn.Module) -> list[nn.Module]:
    """Children, and children of children, that are worth a collective of their own."""
    parts = []
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict) or _size(child) > 16e6:
            parts += _parts(child)
        if _size(child) > 4e6 and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            parts.append(child)
    return parts


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class ShardedCopy:
    """A whole copy of a sharded model, for evaluation and for files.

    Args:
        model: The model before it is sharded.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = deepcopy(model)

    def gathered(self, source: nn.Module) -> nn.Module:
        """The copy with the weights of a sharded model; every process must call it."""
        self._model.load_state_dict(get_model_state_dict(source, options=_WHOLE))
        return self._model


def whole_state(model: nn.Module, optimizer: optim.Optimizer | None = None) -> dict[str, Any]:
    """State of a sharded model or of its optimizer, whole, on the CPU of the main process.

    Every process must call it; the others get an empty dictionary.
    """
    if optimizer is None:
        return get_model_state_dict(model, options=_WHOLE_ON_CPU)
    return get_optimizer_state_dict(model, optimizer, options=_WHOLE_ON_CPU)


def load_whole_state(
    state: dict[str, Any], model: nn.Module, optimizer: optim.Optimizer | None = None
) -> None:
    """Give every process its part of what ``whole_state`` gave."""
    with torch.no_grad():
        if optimizer is None:
            set_model_state_dict(model, state, options=_WHOLE)
        else:
            set_optimizer_state_dict(model, optimizer, state, options=_WHOLE)
