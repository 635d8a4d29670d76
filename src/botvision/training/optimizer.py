"""The optimizer and its learning rate schedule."""

import math

from torch import nn, optim

from botvision.attention import AbsolutePosition2d, RelativePosition2d
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
    tables = {
        id(table)
        for module in model.modules()
        if isinstance(module, RelativePosition2d | AbsolutePosition2d)
        for table in module.parameters()
    }
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    parts = [(1.0, [p for _, p in trained])]
    if settings.backbone_learning_rate is not None:
        backbone = [p for name, p in trained if name.startswith(_BACKBONE)]
        if not backbone:
            raise BotvisionError(
                "training.backbone_learning_rate: expected a model with a backbone to train, got "
                "none; leave it out"
            )
        rest = [p for name, p in trained if not name.startswith(_BACKBONE)]
        scale = settings.backbone_learning_rate / settings.learning_rate
        parts = [(1.0, rest), (scale, backbone)]
    groups = []
    for scale, parameters in parts:
        decayed = [p for p in parameters if p.ndim > 1 and id(p) not in tables]
        others = [p for p in parameters if p.ndim <= 1 or id(p) in tables]
        groups += [
            {"params": decayed, "weight_decay": settings.weight_decay, "lr_scale": scale},
            {"params": others, "weight_decay": 0.0, "lr_scale": scale},
        ]
    if settings.optimizer == "adamw":
        return optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    return optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


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
