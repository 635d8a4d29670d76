"""The weights file: tensors, and a description from which the model is built and used.

A weights file is a safetensors file with a JSON description in its metadata. Everything up to
``input`` is needed to use the model; the rest is information and is never validated, so that a
file outlives every change of the recipes.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.processes import out_of_memory
from botvision.weights.layouts import with_own_names
from botvision.weights.migrations import from_format_0

FORMAT = 1
"""Number of the format that is written; files of this and all earlier formats are read."""

_KEY = "botvision"
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: from_format_0}


class ModelClass(BaseModel):
    """A class of a model.

    Attributes:
        id: Id of the class in the data set, kept wherever results are written.
        name: Name of the class.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    name: str


class InputDescription(BaseModel):
    """How an image becomes the input of a model.

    Attributes:
        size: Side in pixels of the square that images are fitted into or cropped to.
        mean: Mean of each channel, for images in 0..1.
        std: Standard deviation of each channel.
        interpolation: Filter that images are resized with.
        crop: Fraction of the shorter side that is looked at; None: the whole image.
        precision: "bfloat16" runs the model under autocast.
        memory_format: Memory format of the model's convolutions.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop: float | None
    precision: Literal["float32", "bfloat16"]
    memory_format: Literal["contiguous_format", "channels_last"]


class Description(BaseModel):
    """Description of the model in a weights file.

    Attributes:
        format: Number of the file format.
        task: Name of the task, see ``botvision.tasks.task``.
        model: Settings that the task builds the model from.
        classes: Classes of the model, in the order of its outputs.
        input: How images are prepared.
        metrics: Metrics of the weights on the validation split.
        made_by: Version, command and packages that wrote the file, and the step of the run.
        recipe: Recipe of the run.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int = FORMAT
    task: str
    model: dict[str, Any]
    classes: tuple[ModelClass, ...]
    input: InputDescription
    metrics: dict[str, Any] = {}
    made_by: dict[str, Any] = {}
    recipe: dict[str, Any] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's outputs."""
        return tuple(each.name for each in self.classes)

    def recipe_group(self, key: str) -> dict[str, Any]:
        """Return a group of the recipe, such as "training"; empty if there is none."""
        group = self.recipe.get(key)
        return group if isinstance(group, dict) else {}


def save_weights(path: Path, model: nn.Module, description: Description | None = None) -> None:
    """Write the parameters and buffers of a model with its description, all or nothing.

    Args:
        path: File to write or replace.
        model: The model.
        description: Description of the model; None: the file holds the tensors alone.

    Raises:
        BotvisionError: If the disk is full; the previous file stays.
    """
    write_tensors(path, model.state_dict(), description)


def write_tensors(
    path: Path, tensors: dict[str, Tensor], description: Description | None = None
) -> None:
    """Write tensors by name with a description, as ``save_weights`` does for a model.

    Raises:
        BotvisionError: If the disk is full; the previous file stays.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": "pt"}
    if description is not None:
        metadata[_KEY] = json.dumps(description.model_dump(mode="json"))
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise BotvisionError(
            f"{path}: the weights cannot be written ({reason}); the file is as it was before; "
            "free some disk space"
        ) from error


def read_description(path: Path) -> Description:
    """Return the description in a weights file; descriptions of earlier formats are migrated.

    Raises:
        BotvisionError: If the file is missing, holds no description, is of a later format, or
            misses what is needed to use the model.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    if _KEY not in metadata:
        raise BotvisionError(
            f"{path}: expected weights written by botvision, got a safetensors file without "
            "their description"
        )
    try:
        content = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        raise BotvisionError(f"{path}: the description is not JSON ({error})") from error
    return _checked(content, path)


def has_description(path: Path) -> bool:
    """Whether a file is a safetensors file with the description of a model.

    Networks that were published before the format was numbered have their config.json in its
    place.
    """
    try:
        with _opened(path) as file:
            content = json.loads((file.metadata() or {})[_KEY])
    except (KeyError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "model" in content


def _checked(content: Any, path: Path) -> Description:
    number = content.get("format", 0) if isinstance(content, dict) else None
    if not isinstance(number, int) or number < 0:
        raise BotvisionError(f"{path}: expected a description with a format number")
    if number > FORMAT:
        raise BotvisionError(
            f"{path}: expected format {FORMAT} or earlier, got {number}; update botvision"
        )
    try:
        for earlier in range(number, FORMAT):
            content = _MIGRATIONS[earlier](content)
        return Description.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        got = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise BotvisionError(f"{path}: description: {where}: {first['msg']}{got}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise BotvisionError(
            f"{path}: description of format {number}: cannot be read ({reason})"
        ) from error


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, by name without it.

    Raises:
        BotvisionError: If the file is missing or no safetensors file.
    """
    with _opened(path) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise BotvisionError(f"{path}: no such weights file") from error
    except (OSError, SafetensorError) as error:
        if out_of_memory(error):
            raise
        raise BotvisionError(f"{path}: expected a safetensors file ({error})") from error


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Load all tensors of a model; position tables of other lengths are resized.

    Tensors of timm's attention are taken where the model's was converted.

    Args:
        model: Receives the tensors.
        tensors: Tensors by name.
        source: File that they come from, for the error.

    Raises:
        BotvisionError: If names or shapes differ from those of the model.
    """
    expected = model.state_dict()
    if expected.keys() != tensors.keys():
        tensors = with_own_names(model, tensors)
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
        if out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[-1].strip()
        raise BotvisionError(f"{source}: weights of another model: {reason}") from error
