"""Trunks from ResNets' weights: everything but the attention, as the paper does (section 4)."""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from botvision.errors import BotvisionError
from botvision.weights.checkpoints import read_checkpoint
from botvision.weights.layouts import in_layout_of, is_after_features
from botvision.weights.licenses import license_restriction

_BLOCK = re.compile(r"layer[1-4]\.\w+(?=\.)")
_PLACE = re.compile(r"layer[1-4]\.\w+\.\w+|\w+")
_COUNTER = ".num_batches_tracked"
_RESNET_HEAD = "fc"


@dataclass(frozen=True)
class BackboneReport:
    """Where a network's weights come from.

    Attributes:
        source: The checkpoint.
        taken: Names of the network's tensors that come from it.
        new: Names of those that the network had already: its attention, perhaps its head.
        left_out: Names of the checkpoint's tensors that the network has no place for.
        restriction: Note of the checkpoint's license, if it allows no commercial use.
    """

    source: str
    taken: tuple[str, ...]
    new: tuple[str, ...]
    left_out: tuple[str, ...]
    restriction: str | None = None

    def __str__(self) -> str:
        total = len(self.taken) + len(self.new)
        parts = [f"{self.source}: {len(self.taken)} of {total} tensors taken"]
        for what, names in (("new", self.new), ("left out", self.left_out)):
            if names:
                parts.append(f"{what}: {', '.join(self._places(names))}")
        if self.restriction:
            parts.append(self.restriction)
        return "; ".join(parts)

    def _places(self, names: tuple[str, ...]) -> list[str]:
        """Where tensors belong, each once: a whole block, or a module of a block or the stem."""
        begun = {match[0] for match in map(_BLOCK.match, self.taken) if match}
        places: dict[str, None] = {}
        for name in names:
            block = _BLOCK.match(name)
            whole = block if block and block[0] not in begun else _PLACE.match(name)
            places[whole[0] if whole else name] = None
        return list(places)


def load_backbone_weights(
    network: nn.Module, source: str | Path, *, head: bool = True
) -> BackboneReport:
    """Start a BoTNet from the weights of a ResNet or of another BoTNet, or another network of timm.

    The stem and the convolutional blocks must be the same. What the paper replaces or adds stays as
    it is: c5's attention, inserted blocks (table 7), blocks of c5 beyond the ResNet's (T series) or
    of another kind (BoTNet-18 has bottlenecks where ResNet-18 has basic blocks). Position tables
    are resized. Other networks of timm take weights of the same network, and timm's attention where
    theirs was converted.

    Args:
        network: A classifier, or the backbone of a detector (``detector.backbone.body``).
        source: See ``read_checkpoint``: a file, the name of a timm model, "torchvision:...", or a
            repository on the Hub.
        head: Whether the classifier is taken too, where both have one; False leaves it new.

    Returns:
        What was taken; ``print`` shows it as a line.

    Raises:
        BotvisionError: If the file cannot be read or holds another network's weights, or, with
            ``head``, those of another number of classes. The network is as it was.
        ValueError: If ``source`` is neither a file nor a known name.
    """
    own, heads = network.state_dict(), _heads(network)
    tensors = in_layout_of(network, read_checkpoint(source), source)
    taken: dict[str, Tensor] = {}
    new, missing = [], []
    for name, tensor in own.items():
        if not head and name.startswith(heads):
            new.append(name)
        elif name in tensors and not _is_another_kind(name, own, tensors):
            _check_shape(name, tensor, tensors[name], source, heads)
            taken[name] = tensors[name]
        elif name.startswith(heads) or _may_be_new(name, own, tensors):
            new.append(name)
        elif not name.endswith(_COUNTER):  # BatchNorm's, which old checkpoints do not have
            missing.append(name)
    left_out = [name for name in tensors if name not in taken and not name.endswith(_COUNTER)]
    unknown = [
        name
        for name in left_out
        if not name.startswith(heads)
        and not _may_be_left_out(name, own, tensors)
        and not is_after_features(name, network)
    ]
    if missing or unknown:
        raise BotvisionError(
            f"{source}: weights of another model: {len(missing)} tensors missing, {len(unknown)} "
            f"unknown, {(missing or unknown)[0]!r} among them; expected the same network up to its "
            "attention"
        )
    restriction = license_restriction(source)
    with torch.no_grad():
        network.load_state_dict(taken, strict=False)
    return BackboneReport(str(source), tuple(taken), tuple(new), tuple(left_out), restriction)


def _heads(network: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of a network's classifiers."""
    config = getattr(network, "pretrained_cfg", None)
    named = (config.get("classifier") if isinstance(config, dict) else None) or _RESNET_HEAD
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))


def _attends(block: str, own: Container[str]) -> bool:
    """Whether a block does not convolve: the paper's, or one that was inserted."""
    return f"{block}.conv2.weight" not in own


def _is_another_kind(name: str, own: Container[str], tensors: Container[str]) -> bool:
    """Whether a tensor's block is a bottleneck here and a basic block there."""
    match = _BLOCK.match(name)
    if match is None or not _attends(match[0], own):
        return False
    last = f"{match[0]}.conv3.weight"
    return (last in own) != (last in tensors)


def _may_be_new(name: str, own: Container[str], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a ResNet does without a tensor of a BoTNet's."""
    match = _BLOCK.match(name)
    if match is None:
        return False
    block = match[0]
    if not _attends(block, own):
        return False
    whole_block = not any(other.startswith(f"{block}.") for other in tensors)
    replacing = name.startswith(f"{block}.conv2.")
    return whole_block or replacing or _is_another_kind(name, own, tensors)


def _may_be_left_out(name: str, own: Mapping[str, Tensor], tensors: Container[str]) -> bool:
    """Whether a BoTNet does without a tensor of a ResNet's."""
    match = _BLOCK.match(name)
    if match is None:
        return False
    block = match[0]
    if not _attends(block, own) or not any(other.startswith(f"{block}.") for other in own):
        return False
    # The paper's text has squeeze-and-excitation in the convolutional blocks alone.
    replaced = name.startswith((f"{block}.conv2.weight", f"{block}.se."))
    return replaced or _is_another_kind(name, own, tensors)


def _check_shape(
    name: str, own: Tensor, tensor: Tensor, source: str | Path, heads: tuple[str, ...]
) -> None:
    table = name.endswith((".position.height", ".position.width"))
    if own.shape == tensor.shape or (table and own.shape[1:] == tensor.shape[1:]):
        return
    expected, got = tuple(own.shape), tuple(tensor.shape)
    if name.startswith(heads):
        axis, what = (0, "classes") if expected[0] != got[0] else (1, "features")
        raise BotvisionError(
            f"{source}: {name}: expected {expected[axis]} {what}, got {got[axis]}; head=False "
            "leaves the head new and takes the rest"
        )
    raise BotvisionError(
        f"{source}: weights of another model: {name}: expected shape {expected}, got {got}"
    )
