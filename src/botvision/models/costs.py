"""Parameters and multiply-adds of models, counted on the meta device, and the paper's."""

from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from botvision.models import create_model
from botvision.models.names import registered_name
from botvision.models.paper_costs import PAPER_COSTS, PaperCosts


@dataclass(frozen=True)
class ModelCosts:
    """Costs of a model with its default classifier.

    Attributes:
        name: Name of the model.
        parameters: Number of parameters.
        multiply_adds: Multiply-adds for one image, half of torch's count of operations.
        input_size: Side of the square image.
    """

    name: str
    parameters: int
    multiply_adds: int
    input_size: int


@dataclass(frozen=True)
class ComparedCosts:
    """A published count, and ours of the same model at the same image size.

    Attributes:
        paper: Published costs.
        ours: Counted costs, with ``paper.arguments``.
    """

    paper: PaperCosts
    ours: ModelCosts


@dataclass(frozen=True)
class ListedModel:
    """A row of ``botvision models``.

    Attributes:
        costs: Costs with the default arguments at the default input size.
        compared: Comparisons with published costs; empty if there are none.
    """

    costs: ModelCosts
    compared: tuple[ComparedCosts, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the costs and, under "paper", each published count with ours in it."""
        paper = []
        for each in self.compared:
            ours = {key: getattr(each.ours, key) for key in ("parameters", "multiply_adds")}
            paper.append({**asdict(each.paper), "ours": ours})
        return {**asdict(self.costs), "paper": paper}


def model_costs(name: str, input_size: int | None = None, **arguments: Any) -> ModelCosts:
    """Count a model's parameters and multiply-adds on torch's meta device.

    Args:
        name: Name of a model of botvision or timm.
        input_size: Side of the image; the model's default if None.
        arguments: Arguments of the model.

    Raises:
        ValueError: If the model is unknown.
    """
    with torch.device("meta"):
        model = create_model(name, **arguments).eval()
        side = input_size or timm.get_pretrained_cfg(registered_name(name)).input_size[-1]
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model(torch.empty(1, 3, side, side))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelCosts(name, parameters, counter.get_total_flops() // 2, side)


def listed_model(name: str) -> ListedModel:
    """Return the costs of a botvision model, and the published ones if there are any.

    Raises:
        ValueError: If the model is unknown.
    """
    costs = model_costs(name)
    compared = []
    for paper in PAPER_COSTS.get(name, ()):
        same = paper.input_size == costs.input_size and not paper.arguments
        ours = costs if same else model_costs(name, paper.input_size, **paper.arguments)
        compared.append(ComparedCosts(paper, ours))
    return ListedModel(costs, tuple(compared))
