"""Publishing: a trained run or a network as a folder for the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from torch import nn

from botvision.tasks.task import Card, find_task
from botvision.weights.file import read_description, read_tensors
from botvision.weights.hub import CONFIG, write_pretrained
from botvision.weights.hub_config import network_config, network_description
from botvision.weights.model_card import TIMM_USAGE, model_card, without_folders

_BEST = "best.safetensors"
_BOTIFIED_USAGE = (
    'from botvision.weights.hub import from_pretrained\n\nmodel = from_pretrained("{where}")'
)


def save_pretrained(
    source: nn.Module | str | Path,
    folder: str | Path,
    *,
    labels: list[str] | None = None,
    arguments: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
) -> Path:
    """Write a model as the Hugging Face Hub has it, in place of what the folder holds of one.

    Paths of this machine are shortened to their last part in what is written.

    Args:
        source: A classifier that ``create_model`` built and perhaps ``botify`` changed; or a run
            folder, or a weights file in one, whose metrics, recipe, command and figures the model
            card shows.
        folder: Folder to write to; made if it is missing.
        labels: Names of the classes of a network.
        arguments: Arguments of ``create_model``; needed where timm has not recorded them.
        preprocessing: Preparation of images where it differs from the network's configuration:
            "input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode".

    Returns:
        The folder.

    Raises:
        ValueError: If the network could not be built from what would be written.
        BotvisionError: If the weights file cannot be read, or the folder cannot be written.
    """
    target = Path(folder)
    if isinstance(source, nn.Module):
        config = network_config(
            source, labels=labels, arguments=arguments, preprocessing=preprocessing or {}
        )
        description = network_description(config, target / CONFIG)
        usage = _BOTIFIED_USAGE if "botify" in config else TIMM_USAGE
        card = Card("image-classification", config["architecture"], usage, config)
        tensors, run = source.state_dict(), None
    else:
        if labels or arguments or preprocessing:
            raise ValueError(
                "labels, arguments and preprocessing: expected none with a weights file, which "
                "describes itself"
            )
        path = Path(source) / _BEST if Path(source).is_dir() else Path(source)
        description = read_description(path)
        # Paths are shortened everywhere but in the classes, which may be named like paths.
        parts = description.model_dump(include={"model", "metrics", "made_by", "recipe"})
        description = description.model_copy(update=without_folders(parts))
        card = find_task(description.task).card(description, path)
        tensors, run = read_tensors(path), path.parent
    text = model_card(target.name, **vars(card), description=description, run=run)
    write_pretrained(target, tensors, description, card.config, text, run)
    return target
