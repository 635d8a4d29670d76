"""Checkpoints of other packages, read without executing anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from botvision.errors import BotvisionError, nearest
from botvision.models.names import HUB, is_registered, registered_name
from botvision.weights.file import read_tensors
from botvision.weights.hub import pretrained_file

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")
_TORCHVISION = "torchvision:"
# Under which training scripts keep the weights beside an optimizer's state.
_WRAPPERS = ("state_dict", "model")


def read_checkpoint(source: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name.

    Args:
        source: One of

            * a file ``.safetensors``, or ``.pth``, ``.pt``, ``.bin`` or ``.tar`` as torch saves
              them, of tensors alone;
            * the name of a timm model, as "resnet50", "resnet50.a1_in1k" or
              "timm/resnet50.a1_in1k": its trained weights, fetched unless timm has them;
            * "hf-hub:owner/name": the weights of a repository on the Hub, of timm or of botvision,
              fetched likewise;
            * "torchvision:" and the name of one of its weights, as
              "torchvision:ResNet50_Weights.IMAGENET1K_V2", fetched likewise.

    Raises:
        BotvisionError: If the file is missing or holds something else than tensors, or the weights
            cannot be fetched.
        ValueError: If ``source`` is none of these.
    """
    text = source.as_posix() if isinstance(source, Path) else source
    if is_registered(text):
        return _from_timm(registered_name(text))
    if text.startswith(HUB):
        return read_tensors(pretrained_file(text))
    suffix = Path(text).suffix
    if suffix == ".safetensors":
        return read_tensors(Path(source))
    if suffix in _TORCH_SUFFIXES:
        return _read_torch(Path(source))
    if text.startswith(_TORCHVISION):
        return _from_torchvision(text.removeprefix(_TORCHVISION))
    bare = text.removeprefix("timm/")
    known = timm.list_models(pretrained="." in bare)
    raise ValueError(
        f"source: expected a file ({', '.join(('.safetensors', *_TORCH_SUFFIXES))}), a timm model, "
        f"'torchvision:' with the name of weights or '{HUB}owner/name', got {text!r}"
        f"{nearest(bare, known)}"
    )


@contextmanager
def _fetching(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BotvisionError(f"{source}: the weights cannot be fetched ({reason})") from error


def _from_timm(name: str) -> dict[str, Tensor]:
    with _fetching(name):
        return dict(timm.create_model(name, pretrained=True).state_dict())


def _from_torchvision(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_weight  # it imports all of torchvision's networks

    try:
        weights = get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        raise ValueError(
            f"source: expected the name of weights of torchvision, such as "
            f"'torchvision:ResNet50_Weights.IMAGENET1K_V2', got {_TORCHVISION + name!r}"
        ) from error
    with _fetching(_TORCHVISION + name):
        return dict(weights.get_state_dict(progress=False, check_hash=True))


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BotvisionError(f"{path}: no such weights file") from error
    except Exception as error:  # torch.load has no common error class for damaged files
        reason = " ".join(str(error).split())[:200]
        raise BotvisionError(
            f"{path}: expected a file that torch saved, of tensors alone, for nothing else is "
            f"unpickled ({reason})"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise BotvisionError(f"{path}: expected tensors by name, got {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise BotvisionError(
                f"{path}: expected tensors by name, got {name!r}: {type(tensor).__name__}"
            )
    return content
