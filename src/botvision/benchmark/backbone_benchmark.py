"""Compute time of networks, ours and timm's, each at its own image size."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import timm
import torch
from torch import nn

from botvision.benchmark.groups import Case, Group, measure_group
from botvision.benchmark.machine import Machine, describe_machine
from botvision.benchmark.measuring import FORWARD_BACKWARD, PASSES, Prepared
from botvision.benchmark.settings import check_device, check_dtype, dtype_named
from botvision.errors import BotvisionError, nearest
from botvision.models import create_model
from botvision.models.costs import ModelCosts, model_costs

DEFAULT_MODELS = ("resnet50", "botnet50", "seresnet50", "efficientnet_b0")


@dataclass(frozen=True)
class BackboneSettings:
    """What to measure.

    Attributes:
        models: With their costs and the side of their image; ratios are to the first.
        dtype: Of parameters and input alike; there is no autocast.
        batch: Images at a time.
        device: "cpu" or "cuda".
        seconds: Budget to time each pass of all models.
    """

    models: list[ModelCosts]
    dtype: str
    batch: int
    device: str
    seconds: float

    @classmethod
    def checked(
        cls,
        *,
        models: Sequence[str] = (),
        dtype: str = "float32",
        batch: int = 1,
        device: str | None = None,
        seconds: float = 8.0,
    ) -> "BackboneSettings":
        """Settings with the defaults filled in, every name known and every model counted.

        Args:
            models: As "botnet50@1024", or without the side for the model's own.
            dtype: Its name.
            batch: Images at a time.
            device: "cpu" or "cuda"; a GPU where there is one if None.
            seconds: Budget to time each pass of all models.

        Raises:
            BotvisionError: On an unknown model, dtype or device, or a side the model cannot take.
        """
        check_dtype(dtype)
        device = check_device(device)
        names = [(word, *check_model(word)) for word in models or DEFAULT_MODELS]
        costs = [_count(word, name, side) for word, name, side in names]
        return cls(list(dict.fromkeys(costs)), dtype, batch, device, seconds)


@dataclass(frozen=True)
class BackboneReport:
    """What ``botvision benchmark backbone`` found.

    Attributes:
        machine: That it ran on.
        settings: What was asked for.
        groups: A pass each; the results are in the order of the models.
    """

    machine: Machine
    settings: BackboneSettings
    groups: list[Group]


def benchmark_backbones(
    settings: BackboneSettings, *, progress: Callable[[str], None]
) -> BackboneReport:
    """Measure networks with their classifiers, the models taking turns in each pass.

    The forward pass is that of the evaluation mode. Forward and backward in training mode, with
    the gradients of the parameters, is what the paper calls compute time (section 4.8).

    Args:
        settings: What to measure.
        progress: Is told what is going on.
    """
    machine = describe_machine(settings.device)
    groups = []
    for pass_name in PASSES:
        training = pass_name == FORWARD_BACKWARD
        cases = [
            Case(
                model_title(model),
                2 * settings.batch * model.multiply_adds,
                prepare=partial(prepare_backbone, model, settings, training=training),
                warm_up=partial(_prepare_small, settings, training=training),
            )
            for model in settings.models
        ]
        groups.append(
            measure_group(
                cases,
                pass_name,
                device=settings.device,
                dtype=dtype_named(settings.dtype),
                seconds=settings.seconds,
                progress=progress,
            )
        )
    return BackboneReport(machine, settings, groups)


def model_title(model: ModelCosts) -> str:
    """The model and its image, as "botnet50@224"."""
    return f"{model.name}@{model.input_size}"


def check_model(word: str) -> tuple[str, int | None]:
    """Name and side of a model written as botnet50@1024, the side being None if not given.

    Raises:
        BotvisionError: If there is no such model, or the side is no number of pixels.
    """
    name, at, side = word.partition("@")
    if not timm.is_model(name):
        raise BotvisionError(f"--model {word}: no such model{nearest(name, timm.list_models())}")
    if at and not re.fullmatch(r"[1-9]\d*", side):
        raise BotvisionError(f"--model {word}: expected NAME@SIDE in pixels, as {name}@224")
    return name, int(side) if at else None


def prepare_backbone(model: ModelCosts, settings: BackboneSettings, *, training: bool) -> Prepared:
    """A network in the mode wanted, and images [B, 3, side, side] that need no gradient."""
    return _prepare(create_model(model.name), settings, model.input_size, training=training)


def _prepare_small(settings: BackboneSettings, *, training: bool) -> Prepared:
    """A network of next to nothing that uses what all networks use."""
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 8))
    return _prepare(nn.Sequential(*layers), settings, side=8, training=training)


def _prepare(
    network: nn.Module, settings: BackboneSettings, side: int, *, training: bool
) -> Prepared:
    dtype = dtype_named(settings.dtype)
    images = torch.randn(settings.batch, 3, side, side, device=settings.device).to(dtype)
    return network.to(settings.device, dtype).train(training), images


def _count(word: str, name: str, side: int | None) -> ModelCosts:
    try:
        return model_costs(name, side)
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BotvisionError(f"--model {word}: the model takes no such image: {reason}") from error
