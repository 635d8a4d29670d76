"""Weights as one self-describing safetensors file: tensors, and JSON that says what they are."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from botvision.errors import BotvisionError
from botvision.files import replacing

_KEY = "botvision"


def save_weights(path: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Write a model's parameters and buffers with their description, all or nothing.

    Args:
        path: File to write or replace.
        model: The model.
        description: JSON-serializable: how to build the model, its classes, its origin.

    Raises:
        BotvisionError: If there is no room; the previous file stays.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    write_tensors(path, tensors, description)


def write_tensors(path: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write tensors by name with their description, as ``save_weights`` does a model's.

    Raises:
        BotvisionError: If there is no room; the previous file stays.
    """
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={_KEY: json.dumps(description)})
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise BotvisionError(
            f"{path}: the weights cannot be written ({reason}); the file is as it was before; "
            "make room"
        ) from error


def read_description(path: Path) -> dict[str, Any]:
    """The description stored in a weights file.

    Raises:
        BotvisionError: If the file is missing or none that ``save_weights`` wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise BotvisionError(f"{path}: no such weights file") from error
    except (OSError, SafetensorError) as error:
        raise BotvisionError(f"{path}: expected a safetensors file ({error})") from error
    if _KEY not in metadata:
        raise BotvisionError(
            f"{path}: expected weights written by botvision, got a safetensors file without "
            "their description"
        )
    try:
        description: dict[str, Any] = json.loads(metadata[_KEY])
    except json.JSONDecodeError as error:
        raise BotvisionError(f"{path}: the description is not JSON ({error})") from error
    return description


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a weights file whose names begin with ``prefix``, without it.

    Raises:
        BotvisionError: If the file is missing or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except FileNotFoundError as error:
        raise BotvisionError(f"{path}: no such weights file") from error
    except (OSError, SafetensorError) as error:
        raise BotvisionError(f"{path}: expected a safetensors file ({error})") from error


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Load all of a model's tensors, position tables resized where their lengths differ.

    Args:
        model: Receives the tensors.
        tensors: By name, as ``read_tensors`` gives them.
        source: Where they come from, for the error.

    Raises:
        BotvisionError: If they are another model's: names or shapes differ.
    """
    expected = model.state_dict()
    missing, unknown = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or unknown:
        example = sorted(missing or unknown)[0]
        raise BotvisionError(
            f"{source}: weights of another model: {len(missing)} tensors missing, {len(unknown)} "
            f"unknown, {example!r} among them; build the model that the file describes"
        )
    try:
        with torch.no_grad():
            model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise BotvisionError(f"{source}: weights of another model: {reason}") from error
