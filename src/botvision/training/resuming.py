"""Whether a run may go on: with the recipe it began with, but for what changes no result."""

from pathlib import Path
from typing import Any

from botvision.errors import BotvisionError
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
"""Keys of a recipe that may differ when a run is resumed."""


def check_same_recipe(
    state: dict[str, Any], recipe: dict[str, Any], plan: BatchPlan, folder: Path
) -> None:
    """See that a state was made by the recipe that goes on from it.

    Args:
        state: From ``read_state``.
        recipe: The one to go on with.
        plan: How its batch is split now.
        folder: The run folder, for the error.

    Raises:
        BotvisionError: Listing what differs.
    """
    before, now = flattened(state["recipe"]), flattened(recipe)
    differences = [
        f"{key} {_shown(before, key)} -> {_shown(now, key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not FREE & {key, key.partition(".")[0]}
    ]
    if state["batch_size"] != plan.batch_size and not differences:
        counts = f"{state['batch_size']} -> {plan.batch_size}"
        differences = [f"images of a step {counts}, on {plan.processes} processes"]
    if differences:
        raise BotvisionError(
            f"{folder}: the recipe is not the one that the run began with: "
            f"{'; '.join(differences)}; put it back, or start a new run "
            f"(model.backbone_weights may take {folder / 'last.safetensors'})"
        )


def flattened(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's groups of keys as one, with keys such as "training.epochs"."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(content: dict[str, Any], key: str) -> str:
    return repr(content[key]) if key in content else "(not there)"
