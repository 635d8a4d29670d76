"""Optimiser and learning-rate schedule of the recipes."""

import math

from torch import nn, optim

from botvision.attention import AbsolutePosition2d, RelativePosition2d
from botvision.training.settings import TrainingSettings


def build_optimiser(model: nn.Module, settings: TrainingSettings) -> optim.Optimizer:
    """SGD with momentum or AdamW; biases, normalisation and position tables do not decay."""
    tables = {
        id(table)
        for module in model.modules()
        if isinstance(module, RelativePosition2d | AbsolutePosition2d)
        for table in module.parameters()
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 and id(p) not in tables]
    others = [p for p in trained if p.ndim <= 1 or id(p) in tables]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.optimiser == "adamw":
        return optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    return optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def learning_rate_at(step: int, total: int, settings: TrainingSettings) -> float:
    """Learning rate of a step: linear warm-up, then cosine to zero or drops at milestones.

    Args:
        step: From 0 to ``total`` - 1.
        total: Steps of the whole run.
        settings: The recipe's.

    Returns:
        The rate, a function of the step alone, so that a resumed run needs no schedule state.
    """
    share = step / total
    if settings.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * share))
    else:
        factor = settings.step_factor ** sum(share >= drop for drop in settings.milestones)
    if step < settings.warmup_steps:
        first = settings.warmup_factor
        factor *= first + (1 - first) * step / settings.warmup_steps
    return settings.learning_rate * factor
