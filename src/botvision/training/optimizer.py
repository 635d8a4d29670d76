"""The optimizer and its learning rate schedule."""

import math

from torch import nn, optim

from botvision.attention import AbsolutePosition2d, RelativePosition2d
from botvision.attention.rows import AttendingLayer
from botvision.errors import BotvisionError
from botvision.training.settings import TrainingSettings

_BACKBONE = "backbone.body."


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> optim.Optimizer:
    """Build SGD with momentum or AdamW, without decay of biases, normalization and position tables.

    Args:
        model: Model whose trainable parameters are optimized; those below ``backbone.body`` are
            the backbone's.
        settings: Training settings of the recipe.

    Returns:
        An optimizer whose parameter groups hold ``lr_scale``, their factor of the learning rate.

    Raises:
        BotvisionError: If the backbone has a learning rate of its own but the model has none.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    backbone_scale = 1.0
    if settings.backbone_learning_rate is not None:
        if not any(name.startswith(_BACKBONE) for name, _ in trained):
            raise BotvisionError(
                "training.backbone_learning_rate: expected a model with a backbone to train, got "
                "none; leave it out"
            )
        backbone_scale = settings.backbone_learning_rate / settings.learning_rate
    tables, projections = _attention_parameters(model)
    parts: dict[float, list[nn.Parameter]] = {}
    for name, parameter in trained:
        scale = backbone_scale if name.startswith(_BACKBONE) else 1.0
        if id(parameter) in projections:
            scale *= settings.attention_lr_scale
        if id(parameter) in tables:
            scale *= settings.position_lr_scale
        parts.setdefault(scale, []).append(parameter)
    groups = []
    for scale, parameters in sorted(parts.items(), reverse=True):
        decayed = [p for p in parameters if p.ndim > 1 and id(p) not in tables]
        others = [p for p in parameters if p.ndim <= 1 or id(p) in tables]
        groups += [
            {"params": decayed, "weight_decay": settings.weight_decay, "lr_scale": scale},
            {"params": others, "weight_decay": 0.0, "lr_scale": scale},
        ]
    if settings.optimizer == "adamw":
        return optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    return optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def _attention_parameters(model: nn.Module) -> tuple[set[int], set[int]]:
    """Return the ids of a model's position tables, and of its query, key and value projections."""
    tables: set[int] = set()
    projections: set[int] = set()
    for module in model.modules():
        if isinstance(module, RelativePosition2d | AbsolutePosition2d):
            tables |= {id(table) for table in module.parameters()}
        elif isinstance(module, AttendingLayer):
            projections |= {id(p) for each in module.projections() for p in each.parameters()}
    return tables, projections


def learning_rate_at(step: int, total: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine to zero or drops.

    It is a function of the step alone, so a resumed run needs no state of the schedule.

    Args:
        step: Index of the step, from 0 to ``total`` - 1.
        total: Number of steps of the whole run.
        settings: Training settings of the recipe.
    """
    fraction = step / total
    if settings.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * fraction))
    else:
        factor = settings.step_factor ** sum(fraction >= drop for drop in settings.milestones)
    if step < settings.warmup_steps:
        first = settings.warmup_factor
        factor *= first + (1 - first) * step / settings.warmup_steps
    return settings.learning_rate * factor
