"""The state of a run: collected, written as one file that is replaced whole, and restored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from timm.utils import ModelEmaV3
from torch import nn, optim

from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.training.parallel import gather, load_whole_state, whole_state
from botvision.training.sampling import BatchPlan

FREE = frozenset(
    {
        "about",
        "data.folder",
        "training.log_every",
        "training.save_every",
        "training.trackers",
        "training.num_workers",
    }
)
"""Keys of a recipe that may differ when a run is resumed: they change no result."""


@dataclass
class TrainState:
    """A model in training with everything that a step changes.

    Attributes:
        model: Model that a step calls, wrapped for several processes where there are any.
        plain: The model without the wrapper.
        average: Moving average of the weights, if there is one.
        optimizer: Optimizer of the trainable parameters.
        copy: Unsharded copy of the model for evaluation; None unless weights are sharded.
    """

    model: nn.Module
    plain: nn.Module
    average: ModelEmaV3 | None
    optimizer: optim.Optimizer
    copy: nn.Module | None

    def evaluated(self) -> nn.Module:
        """Return the model to evaluate and save, unsharded and the same on all processes.

        Every process must call it.
        """
        model = self.plain if self.average is None else self.average.module
        if self.copy is not None:
            gather(model, self.copy)
            model = self.copy
        for buffer in model.buffers():  # BatchNorm's, where each process has its own
            broadcast(buffer)
        return model


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: Number of steps done.
        evaluated: Step of the last evaluation.
        best: Best value so far of the metric that selects the best weights; None before the
            first evaluation.
        since_best: Number of evaluations after the best one.
    """

    step: int = 0
    evaluated: int = 0
    best: float | None = None
    since_best: int = 0


def collect_state(
    state: TrainState, progress: Progress, batch_size: int, recipe: dict[str, Any]
) -> dict[str, Any]:
    """Return the content of a state file; every process must call it.

    Args:
        state: The model in training.
        progress: How far the run has come.
        batch_size: Number of images of an optimizer step.
        recipe: Recipe of the run, compared when it is resumed.
    """
    sharded, average = state.copy is not None, state.average

    def saved(model: nn.Module) -> dict[str, Any]:
        return whole_state(model) if sharded else model.state_dict()

    return {
        "model": saved(state.plain),
        "average": None if average is None else saved(average.module),
        "optimizer": whole_state(state.plain, state.optimizer)
        if sharded
        else state.optimizer.state_dict(),
        "progressed": dict(vars(progress)),
        "batch_size": batch_size,
        "recipe": recipe,
    }


def write_state(path: Path, saved: dict[str, Any]) -> None:
    """Write a state file; a crash while writing leaves the previous one.

    Args:
        path: File to write or replace.
        saved: Content from ``collect_state``.

    Raises:
        BotvisionError: If the file cannot be written; the previous one stays.
    """
    try:
        with replacing(path) as temporary:
            torch.save(saved, temporary)
    except (OSError, RuntimeError) as error:  # torch reports failed writes as either
        reason = " ".join(str(error).split())
        raise BotvisionError(
            f"{path}: the state of step {saved['progressed']['step']} cannot be written "
            f"({reason}); the one before is as it was; free some disk space and resume the run"
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """Read a state file; no code in it is executed.

    Raises:
        BotvisionError: If there is no such file, or it is damaged.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        Progress(**saved["progressed"])
        _ = saved["model"], saved["average"], saved["optimizer"]
        _ = int(saved["batch_size"]), dict(saved["recipe"])
    except FileNotFoundError as error:
        raise BotvisionError(f"{path}: nothing to resume from; start the run anew") from error
    except Exception as error:  # torch.load has no common error class for damaged files
        raise _damaged(path, error) from error
    return dict(saved)


def restore(saved: dict[str, Any], state: TrainState, path: Path) -> Progress:
    """Load a saved state into a model in training; every process must call it.

    Args:
        saved: Content from ``read_state``.
        state: Model, average and optimizer to load into.
        path: State file, for the error.

    Returns:
        How far the run had come.

    Raises:
        BotvisionError: If the state belongs to another model.
    """
    average, optimizer = state.average, state.optimizer
    try:
        if state.copy is not None:
            load_whole_state(saved["model"], state.plain)
            load_whole_state(saved["optimizer"], state.plain, optimizer)
            if average is not None:
                load_whole_state(saved["average"], average.module)
        else:
            state.plain.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            if average is not None:
                average.module.load_state_dict(saved["average"])
    except Exception as error:  # the three raise errors of different classes
        raise _damaged(path, error) from error
    return Progress(**saved["progressed"])


def _damaged(path: Path, error: Exception) -> BotvisionError:
    reason = " ".join(str(error).split())
    return BotvisionError(f"{path}: damaged, or of another model; start the run anew ({reason})")


def check_same_recipe(
    saved: dict[str, Any], recipe: dict[str, Any], plan: BatchPlan, folder: Path
) -> None:
    """Check that a run is resumed with its own recipe, except for keys in ``FREE``.

    Args:
        saved: Content from ``read_state``.
        recipe: Recipe to resume with.
        plan: How the batch is split now.
        folder: The run folder, for the error.

    Raises:
        BotvisionError: If values differ; the message lists them.
    """
    before, now = flattened(saved["recipe"]), flattened(recipe)
    differences = [
        f"{key} {_shown(before, key)} -> {_shown(now, key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not FREE & {key, key.partition(".")[0]}
    ]
    if saved["batch_size"] != plan.batch_size and not differences:
        counts = f"{saved['batch_size']} -> {plan.batch_size}"
        differences = [f"images of a step {counts}, on {plan.processes} processes"]
    if differences:
        raise BotvisionError(
            f"{folder}: the recipe is not the one that the run began with: "
            f"{'; '.join(differences)}; put it back, or start a new run "
            f"(model.backbone_weights may take {folder / 'last.safetensors'})"
        )


def flattened(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested groups of keys as one, with keys such as "training.epochs"."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(content: dict[str, Any], key: str) -> str:
    return repr(content[key]) if key in content else "(not there)"
