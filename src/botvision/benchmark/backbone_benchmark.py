"""Compute time of backbones, ours and timm's, each at its own image size."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from botvision.benchmark.machine import Machine, describe_machine
from botvision.benchmark.measuring import (
    FORWARD_BACKWARD,
    PASSES,
    Case,
    Group,
    Prepared,
    measure_group,
)
from botvision.benchmark.settings import check_device, dtype_named
from botvision.errors import BotvisionError
from botvision.models import create_model
from botvision.models.costs import ModelCosts, model_costs
from botvision.models.names import registered_name
from botvision.processes import first_line

DEFAULT_MODELS = ("resnet50", "botnet50", "seresnet50", "efficientnet_b0")


@dataclass(frozen=True)
class BackboneSettings:
    """Settings of the backbone benchmark.

    Attributes:
        models: Models with their costs and image size; ratios are to the first.
        dtype: Dtype of parameters and input; there is no autocast.
        batch: Batch size.
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
        device: str = "",
        seconds: float = 8.0,
    ) -> "BackboneSettings":
        """Check the settings, fill in the defaults and count the models' costs.

        Args:
            models: Models as "botnet50@1024", or "botnet50" at its own image size.
            dtype: Name of the dtype.
            batch: Batch size.
            device: "cpu" or "cuda"; by default a GPU if there is one.
            seconds: Budget to time each pass of all models.

        Raises:
            BotvisionError: On an unknown model, dtype or device, or an unsupported image size.
        """
        dtype_named(dtype)
        device = check_device(device)
        names = {word: check_model(word) for word in models or DEFAULT_MODELS}
        costs = [_count(word, *name) for word, name in names.items()]
        return cls(list(dict.fromkeys(costs)), dtype, batch, device, seconds)


@dataclass(frozen=True)
class BackboneReport:
    """Result of ``botvision benchmark backbone``.

    Attributes:
        machine: Machine that it ran on.
        settings: Settings of the benchmark.
        groups: One group per pass; the results are in the order of the models.
    """

    machine: Machine
    settings: BackboneSettings
    groups: list[Group]


def benchmark_backbones(
    settings: BackboneSettings, *, progress: Callable[[str], None] | None = None
) -> BackboneReport:
    """Measure models with their classifiers, which take turns in each pass.

    The forward pass is that of the evaluation mode. Forward and backward in training mode, with
    the gradients of the parameters, is what the paper calls compute time (section 4.8).

    Args:
        settings: Settings of the benchmark.
        progress: Called with the current step.
    """
    report = BackboneReport(describe_machine(settings.device), settings, [])
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
        group = measure_group(
            cases,
            pass_name,
            device=settings.device,
            dtype=dtype_named(settings.dtype),
            seconds=settings.seconds,
            progress=progress,
        )
        report.groups.append(group)
    return report


def model_title(model: ModelCosts) -> str:
    """Return the model and its image size, as "botnet50@224"."""
    return f"{model.name}@{model.input_size}"


def check_model(word: str) -> tuple[str, int | None]:
    """Return name and image side of a model written as botnet50@1024; None if no side is given.

    Raises:
        BotvisionError: If there is no such model, or the side is not a number of pixels.
    """
    name, at, side = word.partition("@")
    try:
        name = registered_name(name)
    except ValueError as error:
        raise BotvisionError(str(error)) from error
    if at and not re.fullmatch(r"[1-9]\d*", side):
        raise BotvisionError(f"model {word}: expected NAME@SIDE in pixels, as {name}@224")
    return name, int(side) if at else None


def prepare_backbone(model: ModelCosts, settings: BackboneSettings, *, training: bool) -> Prepared:
    """Return a model in the intended mode, and images [B, 3, side, side] without gradient."""
    return _prepare(create_model(model.name), settings, model.input_size, training=training)


def _prepare_small(settings: BackboneSettings, *, training: bool) -> Prepared:
    """Return a tiny network with the layers that all models have."""
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
        raise BotvisionError(
            f"model {word}: the model takes no such image: {first_line(error)}"
        ) from error
