"""Turn a ResNet into a BoTNet by replacing its c5 convolutions (paper section 3, figure 1)."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from timm.layers import AvgPool2dSame, BlurPool2d, to_2tuple
from torch import nn

from botvision.attention import MultiHeadSelfAttention2d
from botvision.attention.layer import PositionKind
from botvision.models.bottleneck_transformer import position_table_names, spatial_attention

_STAGES = ("layer1", "layer2", "layer3", "layer4")
_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, BlurPool2d)
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Conversion:
    """Changes that ``botify`` made.

    Attributes:
        replaced: Names of the convolutions that were replaced by attention.
        new: Names of the new parameters, which are random.
        kept: Number of parameters and buffers that are unchanged, to the bit.
    """

    replaced: tuple[str, ...]
    new: tuple[str, ...]
    kept: int

    def __str__(self) -> str:
        return (
            f"attention replaces {', '.join(self.replaced)}; {self.kept} tensors kept; "
            f"{len(self.new)} new and random: {', '.join(self.new)}"
        )


def botify(
    resnet: Network,
    *,
    stride_one: bool = False,
    position: PositionKind = "relative",
    position_size: int | tuple[int, int] | None = None,
    content: bool = True,
    num_heads: int = 4,
    impl: str = "auto",
    report: Callable[[Conversion], object] | None = None,
) -> Network:
    """Turn a ResNet, trained or not, into a BoTNet.

    Accepts the ResNets of timm and torchvision and networks built like them: ResNeXt, SE-ResNet,
    ResNet-D, anti-aliased and wide ones, whole, as features (``features_only``) or inside a
    torchvision detector (``detector.backbone.body``). The 3x3 convolution ``conv2`` of every block
    of c5 (``layer4``) is replaced by attention, followed by 2x2 average pooling where it had a
    stride of 2; all other weights are unchanged, to the bit. timm's resnet50 becomes ``botnet50``.

    In a basic block only the second 3x3 convolution is replaced: the first changes the width and
    the resolution, which attention cannot.

    Batch normalization keeps its statistics, those of the convolution's output, so train the
    network before you use it. The new parameters are trainable even where the convolution was
    frozen.

    Args:
        resnet: Network to convert, in place.
        stride_one: Whether c5 keeps the resolution of c4 (S1, section 4.8).
        position: "relative", "absolute" or "none" (table 4).
        position_size: Side, or (H, W), of the map that enters c5, for which the position tables
            are made; for other maps they are interpolated. None: the map of timm's input size for
            the network, or of 224 x 224.
        content: Whether the logits contain the content term q . k (table 4).
        num_heads: Attention heads; 4 in the paper.
        impl: Implementation of ``decomposed_attention``.
        report: Called with the changes; ``report=print`` prints them.

    Returns:
        ``resnet``. Its attribute ``botify_arguments`` holds the options, to convert another one
        in the same way.

    Raises:
        ValueError: If the network cannot be converted; it is unchanged then.
    """
    blocks = _c5_blocks(resnet)
    options: dict[str, Any] = {
        "num_heads": num_heads,
        "position": position,
        "content": content,
        "impl": impl,
    }
    size = _c5_input_size(resnet) if position_size is None else to_2tuple(position_size)
    entering = size
    replacements: dict[str, nn.Module] = {}
    for name, block in blocks.items():
        convolution = block.conv2
        before, stride, after = (1, 1, 1) if stride_one else _strides(block)
        size = _shrunk(size, before)
        attention = spatial_attention(convolution.out_channels, stride, size, **options)
        replacements[name] = attention.to(convolution.weight).train(convolution.training)
        size = _shrunk(size, stride * after)

    names = resnet.state_dict().keys()
    for name, block in blocks.items():
        block.conv2 = replacements[name]
        if stride_one:
            _set_stride_one(block)
    whole: Any = resnet
    if stride_one:
        for entry in getattr(whole, "feature_info", ()):
            if entry["module"] == _STAGES[-1]:
                entry["reduction"] = _c5_input_stride(resnet)
    whole.botify_arguments = {"stride_one": stride_one, "position_size": entering, **options}
    if report is not None:
        now = resnet.state_dict().keys()
        new = tuple(name for name in now if name not in names)
        replaced = tuple(f"{name}.conv2" for name in blocks)
        report(Conversion(replaced, new, len(now) - len(new)))
    if not hasattr(resnet, "no_weight_decay"):  # timm's optimizers ask for it
        whole.no_weight_decay = partial(position_table_names, resnet)
    return resnet


def _c5_blocks(resnet: nn.Module) -> dict[str, Any]:
    """Return the blocks of c5 by name; attention can replace the convolution of each."""
    if not all(hasattr(resnet, stage) for stage in _STAGES):
        inner = [n.removesuffix(".layer4") for n, _ in resnet.named_modules() if ".layer4" in n]
        hint = f"; convert its {inner[0]!r} instead" if inner else ""
        raise ValueError(
            f"resnet: expected a ResNet with stages layer1 to layer4, got {type(resnet).__name__}"
            f"{hint}"
        )
    stage = resnet.get_submodule(_STAGES[-1])
    blocks = {f"{_STAGES[-1]}.{name}": block for name, block in stage.named_children()}
    if not blocks:
        raise ValueError(f"resnet: expected blocks in layer4, got {type(stage).__name__}")
    for name, block in blocks.items():
        _check(name, block)
    return blocks


def _check(name: str, block: nn.Module) -> None:
    if any(isinstance(module, MultiHeadSelfAttention2d) for module in block.modules()):
        raise ValueError(f"resnet: {name} attends already; expected a ResNet, got a BoTNet")
    first, convolution = getattr(block, "conv1", None), getattr(block, "conv2", None)
    where = f"resnet: {name}.conv2 ({type(block).__name__})"
    if not isinstance(first, nn.Conv2d) or not isinstance(convolution, nn.Conv2d):
        got = "none" if convolution is None else type(convolution).__name__
        raise ValueError(f"{where}: expected a 3x3 convolution after conv1, got {got}")
    if convolution.kernel_size != (3, 3) or convolution.stride not in ((1, 1), (2, 2)):
        raise ValueError(f"{where}: expected a 3x3 convolution of stride 1 or 2, got {convolution}")
    if convolution.in_channels != convolution.out_channels:
        raise ValueError(
            f"{where}: expected as many channels out as in, for attention keeps their number, got "
            f"{convolution.in_channels} in and {convolution.out_channels} out"
        )


def _strides(block: Any) -> tuple[int, int, int]:
    """Return the strides before, at and after the replaced convolution of a block."""
    smoothing = _stride(block.aa) if hasattr(block, "aa") else 1  # timm's, after the strided one
    before, stride = block.conv1.stride[0], block.conv2.stride[0]
    if hasattr(block, "conv3"):
        return before, stride, smoothing
    return before * smoothing, stride, 1


def _stride(module: nn.Module) -> int:
    """Return the stride of a chain of layers."""
    return math.prod(to_2tuple(m.stride)[0] for m in module.modules() if isinstance(m, _STRIDED))


def _c5_input_stride(resnet: nn.Module) -> int:
    stride = 1
    for name, child in resnet.named_children():
        if name == _STAGES[-1]:
            break
        if name in _STAGES:  # blocks have two paths
            blocks: Iterable[Any] = child.children()
            stride *= math.prod([int(block.stride) for block in blocks])
        else:
            stride *= _stride(child)
    return stride


def _c5_input_size(resnet: nn.Module) -> tuple[int, int]:
    config = getattr(resnet, "pretrained_cfg", {})
    _, height, width = config.get("input_size", (3, 224, 224))
    return _shrunk((height, width), _c5_input_stride(resnet))


def _shrunk(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def _set_stride_one(block: Any) -> None:
    """Make a converted block keep its input's resolution, as timm's ``output_stride`` does."""
    block.stride = 1
    block.conv1.stride = (1, 1)
    if isinstance(getattr(block, "aa", None), BlurPool2d):
        block.aa.stride = 1
    elif hasattr(block, "aa"):
        block.aa = nn.Identity()  # average pooling
    shortcut = block.downsample
    for index, layer in enumerate(() if shortcut is None else shortcut):
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
        elif isinstance(layer, nn.AvgPool2d):
            shortcut[index] = AvgPool2dSame(layer.kernel_size, 1, count_include_pad=False)
