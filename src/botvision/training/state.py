"""Training state: what a resumed run needs, in one file that is replaced whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.training.preparation import Prepared
from botvision.training.sharding import load_whole_state, whole_state


@dataclass
class Progressed:
    """How far a run has come.

    Attributes:
        step: Steps done.
        evaluated: Step of the last evaluation.
        best: Best value so far of the metric that chooses; None before the first evaluation.
        since_best: Evaluations after the best one.
    """

    step: int = 0
    evaluated: int = 0
    best: float | None = None
    since_best: int = 0


def collect_state(
    prepared: Prepared, progressed: Progressed, batch_size: int, recipe: dict[str, Any]
) -> dict[str, Any]:
    """What ``write_state`` writes; every process must call it.

    Args:
        prepared: The model in training.
        progressed: How far it is.
        batch_size: Images of an optimizer step.
        recipe: The run's, to be compared when it is resumed.
    """
    plain, average, optimizer = prepared.plain, prepared.average, prepared.optimizer
    averaged = None if average is None else average.module
    if prepared.copy is not None:
        model = whole_state(plain)
        average_state = None if averaged is None else whole_state(averaged)
        optimizer_state = whole_state(plain, optimizer)
    else:
        model = plain.state_dict()
        average_state = None if averaged is None else averaged.state_dict()
        optimizer_state = optimizer.state_dict()
    return {
        "model": model,
        "average": average_state,
        "optimizer": optimizer_state,
        "progressed": dict(vars(progressed)),
        "batch_size": batch_size,
        "recipe": recipe,
    }


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a run; a crash while writing leaves the previous one.

    Raises:
        BotvisionError: If there is no room; the previous state stays.
    """
    try:
        with replacing(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch reports failed writes as either
        reason = " ".join(str(error).split())
        raise BotvisionError(
            f"{path}: the state of step {state['progressed']['step']} cannot be written "
            f"({reason}); the one before is as it was; make room and go on with --resume"
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """Read a state file, executing nothing.

    Raises:
        BotvisionError: If there is none, or it is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        Progressed(**state["progressed"])
        _ = state["model"], state["average"], state["optimizer"]
        _ = int(state["batch_size"]), dict(state["recipe"])
    except FileNotFoundError as error:
        raise BotvisionError(f"{path}: nothing to resume from; start the run anew") from error
    except Exception as error:  # torch.load has no common error class for damaged files
        raise _damaged(path, error) from error
    return dict(state)


def restore(state: dict[str, Any], prepared: Prepared, path: Path) -> Progressed:
    """Put a model in training where a state says it was.

    Args:
        state: From ``read_state``.
        prepared: Receives the state; every process must call it.
        path: Where the state comes from, for the error.

    Raises:
        BotvisionError: If the state is another model's.
    """
    average, optimizer = prepared.average, prepared.optimizer
    try:
        if prepared.copy is not None:
            load_whole_state(state["model"], prepared.plain)
            load_whole_state(state["optimizer"], prepared.plain, optimizer)
            if average is not None:
                load_whole_state(state["average"], average.module)
        else:
            prepared.plain.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            if average is not None:
                average.module.load_state_dict(state["average"])
    except Exception as error:  # each of the three has its own
        raise _damaged(path, error) from error
    return Progressed(**state["progressed"])


def _damaged(path: Path, error: Exception) -> BotvisionError:
    reason = " ".join(str(error).split())
    return BotvisionError(f"{path}: damaged, or of another model; start the run anew ({reason})")
