"""BatchNorm of a detector's backbone: frozen where pretrained, or with other settings."""

import re
from collections.abc import Collection

from torch import nn

from botvision.errors import BotvisionError

_BLOCK = re.compile(r"layer\d\.\w+")
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def tune_batch_norm(model: nn.Module, momentum: float | None, eps: float | None) -> None:
    """Set the momentum and epsilon of every BatchNorm; None keeps the network's."""
    for module in model.modules():
        if isinstance(module, _NORMS):
            module.momentum = module.momentum if momentum is None else momentum
            module.eps = module.eps if eps is None else eps


def freeze_batch_norm(backbone: nn.Module, taken: Collection[str]) -> list[str]:
    """Stop training BatchNorm where it and its whole block come from backbone weights.

    In a block with new attention the statistics would be those of a convolution that is no longer
    there, and a last scale that starts at zero would stay zero.

    Args:
        backbone: Network whose scales and shifts are frozen; ``hold_batch_norm`` freezes the
            statistics.
        taken: Names of the tensors loaded from backbone weights.

    Returns:
        Names of the frozen layers.

    Raises:
        BotvisionError: If there is nothing to freeze.
    """
    new = {_block(name) for name in backbone.state_dict() if name not in taken}
    frozen = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, _NORMS) and f"{name}.weight" in taken and _block(name) not in new
    ]
    if not frozen:
        raise BotvisionError(
            "model.batch_norm: expected model.backbone_weights with 'frozen', got none; give "
            "weights, such as resnet50.a1_in1k for botnet50, or model.batch_norm=synchronized"
        )
    for name in frozen:
        backbone.get_submodule(name).requires_grad_(False)
    return frozen


def hold_batch_norm(backbone: nn.Module, frozen: Collection[str]) -> None:
    """Put frozen layers back into evaluation mode, after the model went into training mode."""
    for name in frozen:
        backbone.get_submodule(name).eval()


def _block(name: str) -> str:
    """Return the block that a tensor or layer belongs to; in the stem, its layer."""
    found = _BLOCK.match(name)
    return found[0] if found else name.split(".")[0]
