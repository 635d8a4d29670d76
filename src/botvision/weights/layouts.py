"""Tensors of other layouts under the names that a network has for them."""

from collections.abc import Container, Mapping
from pathlib import Path

from torch import Tensor, nn

from botvision.errors import BotvisionError
from botvision.models.foreign import ConvertedBottleneckAttn
from botvision.weights.distribuuuu import (
    distribuuuu_tensors,
    has_activated_shortcut,
    is_distribuuuu,
)

# Every ResNet of timm and torchvision has it, whatever its stem.
_LANDMARK = "layer1.0.conv1.weight"
_IN_DETECTOR = "backbone.body."
_PARALLEL = "module."
_GETTER = "model."  # where timm's features hold a network whole


def in_layout_of(
    network: nn.Module, tensors: Mapping[str, Tensor], source: str | Path
) -> dict[str, Tensor]:
    """Return a checkpoint's tensors under a network's own names, as far as it has them.

    A backbone's tensors are found wherever it stands in a detector or a wrapper, in timm's layout
    of a classifier ("stages.2") or of features ("stages_2"), with timm's attention where the
    network's was converted, and as distribuuuu's BoTNet-50.

    Args:
        network: Network that the tensors are meant for.
        tensors: Tensors by the checkpoint's names.
        source: The checkpoint, for errors.

    Raises:
        BotvisionError: If a ResNet is expected and there is none, or more than one, or if the
            network differs from distribuuuu's BoTNet-50 by its shortcut.
    """
    own = network.state_dict()
    if is_distribuuuu(tensors):
        if not has_activated_shortcut(network):
            raise BotvisionError(
                f"{source}: weights of distribuuuu's botnet50: expected botnet50_s1 with "
                "shortcut_activation=True, got a network whose shortcuts end without an activation"
            )
        tensors = distribuuuu_tensors(tensors)
    return with_own_names(network, _without_prefix(tensors, own, source))


def with_own_names(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of timm's layouts under a network's own names; others keep theirs."""
    originals = {
        _key(f"{name}.{theirs}"): (f"{name}.{own}", factor)
        for name, module in network.named_modules()
        if isinstance(module, ConvertedBottleneckAttn)
        for theirs, (own, factor) in module.originals().items()
    }
    own = network.state_dict()
    # A classifier has the module "stages" where timm's features have "stages_0", "stages_1", ...
    flat = {_key(name.removeprefix(_GETTER)): name for name in own}
    found = {}
    for name, tensor in tensors.items():
        if name not in own and _key(name) in originals:
            renamed, factor = originals[_key(name)]
            found[renamed] = tensor if factor == 1.0 else tensor * factor
        else:
            found[name if name in own else flat.get(_key(name), name)] = tensor
    return found


def is_after_features(name: str, network: nn.Module) -> bool:
    """Return whether a tensor's module is one that timm's features do without, as the head is.

    Args:
        name: Name in the checkpoint that the network has no tensor of.
        network: timm's features, or any other network, which does without none.
    """
    if not hasattr(network, "feature_info") or hasattr(network, "get_classifier"):
        return False
    children = {own.removeprefix(_GETTER).split(".")[0] for own in network.state_dict()}
    return not any(_key(name).startswith(f"{child}_") for child in children)


def _key(name: str) -> str:
    return name.replace(".", "_")


def _without_prefix(
    tensors: Mapping[str, Tensor], own: Container[str], source: str | Path
) -> dict[str, Tensor]:
    if _LANDMARK in own:
        prefixes = [name.removesuffix(_LANDMARK) for name in tensors if name.endswith(_LANDMARK)]
        if len(prefixes) != 1:
            raise BotvisionError(
                f"{source}: weights of another model: expected those of one ResNet or BoTNet, with "
                f"a tensor '{_LANDMARK}', got {len(prefixes)} such tensors"
            )
        (prefix,) = prefixes
    else:  # another network of timm's, from one of our detectors or from a classifier
        prefix = next(
            (
                wrapper
                for wrapper in (_PARALLEL + _IN_DETECTOR, _IN_DETECTOR, _PARALLEL)
                if any(name.startswith(wrapper) for name in tensors)
            ),
            "",
        )
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
