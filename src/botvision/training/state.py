"""Training state: what a resumed run needs, in one file that is replaced whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn, optim

from botvision.errors import BotvisionError
from botvision.files import replacing


@dataclass
class Progressed:
    """How far a run has come.

    Attributes:
        step: Steps done.
        best: Best primary metric so far; None before the first evaluation.
    """

    step: int = 0
    best: float | None = None


def save_state(
    path: Path,
    model: nn.Module,
    average: ModelEmaV3 | None,
    optimiser: optim.Optimizer,
    progressed: Progressed,
) -> None:
    """Write the state of a run; a crash while writing leaves the previous one."""
    state = {
        "model": model.state_dict(),
        "average": None if average is None else average.module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progressed": vars(progressed),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(
    path: Path, model: nn.Module, average: ModelEmaV3 | None, optimiser: optim.Optimizer
) -> Progressed:
    """Restore a run from its state file.

    Raises:
        BotvisionError: If there is none, or it is damaged or of another model.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        if average is not None:
            average.module.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        return Progressed(**state["progressed"])
    except FileNotFoundError as error:
        raise BotvisionError(f"{path}: nothing to resume from; start the run anew") from error
    except Exception as error:  # torch.load has no common error class for damaged files
        reason = " ".join(str(error).split())
        raise BotvisionError(
            f"{path}: damaged, or of another model; start the run anew ({reason})"
        ) from error
