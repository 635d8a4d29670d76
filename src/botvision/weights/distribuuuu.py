"""The BoTNet-50 that github.com/BIGBALLON/distribuuuu trained, as a network of ours.

It is BoTNet-S1-50 but for a ReLU at the end of c5's first shortcut. As here, queries are scaled, so
both logits are, tables run over key minus query from the most negative offset, and the head is one
linear layer after the pooling. q | k and v are two convolutions there, one here.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from botvision.errors import BotvisionError
from botvision.models import create_model

_PARALLEL = "module."
_MARK = "7.net.0.net.3.to_qk.weight"
# Its network is a sequence: the children of torchvision's ResNet without c5, pooling and head, then
# its own. In the blocks of c5, 2, 4 and 6 are without parameters.
_STEM = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "10": "fc"}
_BLOCK = {
    "shortcut.0": "downsample.0",
    "shortcut.1": "downsample.1",
    "net.0": "conv1",
    "net.1": "bn1",
    "net.5": "bn2",
    "net.7": "conv3",
    "net.8": "bn3",
}
_TABLES = {
    "net.3.pos_emb.rel_height": "conv2.attention.position.height",
    "net.3.pos_emb.rel_width": "conv2.attention.position.width",
}
_QKV = "conv2.attention.qkv.weight"
_C5 = re.compile(r"7\.net\.(\d+)\.(.+)")
_ACTIVATED = "layer4.0.downsample.2"


def is_distribuuuu(tensors: Iterable[str]) -> bool:
    """Return whether names of tensors are those of distribuuuu's BoTNet-50."""
    return any(name.removeprefix(_PARALLEL) == _MARK for name in tensors)


def distribuuuu_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of distribuuuu's BoTNet-50 under our names; unknown ones keep theirs."""
    found = {}
    bare = {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    for name, tensor in bare.items():
        block = _C5.fullmatch(name)
        if block is None:
            first, _, rest = name.partition(".")
            found[f"{_STEM.get(first, first)}.{rest}"] = tensor
            continue
        prefix, part = f"layer4.{block[1]}.", block[2]
        module, _, parameter = part.rpartition(".")
        if part == "net.3.to_qk.weight":
            value = bare.get(f"7.net.{block[1]}.net.3.to_v.weight")
            found[prefix + _QKV] = tensor if value is None else torch.cat([tensor, value])
        elif part in _TABLES:
            found[prefix + _TABLES[part]] = tensor
        elif module in _BLOCK:
            found[f"{prefix}{_BLOCK[module]}.{parameter}"] = tensor
        elif part != "net.3.to_v.weight":
            found[name] = tensor
    return found


def has_activated_shortcut(network: nn.Module) -> bool:
    """Return whether c5's first shortcut ends in an activation, as distribuuuu's does."""
    return any(name.endswith(_ACTIVATED) for name, _ in network.named_modules())


def from_distribuuuu(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the network that computes what distribuuuu's BoTNet-50 does, at any image size.

    It is ``create_model("botnet50_s1", shortcut_activation=True)``.

    Args:
        tensors: Its state dict, as ``botvision.weights.checkpoints.read_checkpoint`` reads it.

    Returns:
        The network in evaluation mode, with as many blocks, heads and classes as the weights have.

    Raises:
        BotvisionError: If the tensors are those of another network.
    """
    if not is_distribuuuu(tensors):
        raise BotvisionError(
            "tensors: expected those of distribuuuu's botnet50, with "
            f"'{_MARK}', got none of that name; load_backbone_weights takes other layouts"
        )
    found = distribuuuu_tensors(tensors)
    try:
        network = create_model("botnet50_s1", shortcut_activation=True, **_shape(found))
        network.load_state_dict(found)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BotvisionError(
            f"tensors: weights of another model than botnet50: {reason}"
        ) from error
    return network.eval()


def _shape(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of the network that tensors under our names belong to."""
    blocks = [
        {name.split(".")[1] for name in tensors if name.startswith(f"layer{i}.")}
        for i in range(1, 5)
    ]
    height = tensors["layer4.0.conv2.attention.position.height"]
    width = tensors["layer4.0.conv2.attention.position.width"]
    channels = len(tensors[f"layer4.0.{_QKV}"]) // 3
    return {
        "layers": tuple(map(len, blocks)),
        "num_heads": channels // height.shape[1],
        "num_classes": len(tensors["fc.weight"]),
        "img_size": (8 * (len(height) + 1), 8 * (len(width) + 1)),  # c5's stride is 16
    }
