"""Parameters and multiply-adds of a network (paper table 1), without computing anything."""

from dataclasses import dataclass

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from botvision.models import create_model


@dataclass(frozen=True)
class ModelCosts:
    """Costs of a network with its default classifier.

    Attributes:
        name: Of the model.
        parameters: Their number.
        multiply_adds: Of one image, half of what torch's counter calls operations.
        input_size: Side of the square image.
    """

    name: str
    parameters: int
    multiply_adds: int
    input_size: int


def model_costs(name: str, input_size: int | None = None) -> ModelCosts:
    """Count a network's parameters and multiply-adds on torch's meta device.

    Args:
        name: Of one of our models or timm's.
        input_size: Side of the image; the model's default if None.

    Raises:
        ValueError: If the model is unknown.
    """
    with torch.device("meta"):
        model = create_model(name).eval()
        side = input_size or timm.get_pretrained_cfg(name).input_size[-1]
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model(torch.empty(1, 3, side, side))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelCosts(name, parameters, counter.get_total_flops() // 2, side)
