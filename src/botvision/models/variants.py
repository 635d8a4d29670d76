"""The paper's architectures as a table, in the paper's order, registered with timm."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from botvision.models.botnet import BoTNet
from botvision.models.inserted import NonLocalResNet, TransformerResNet
from botvision.models.paper_costs import PAPER_COSTS


@dataclass(frozen=True)
class Extras:
    """Architecture options besides the block counts.

    Attributes:
        network: Class of the network.
        arguments: Arguments of the class, except for blocks, stride and image size.
        configuration: Changes of timm's default configuration.
    """

    network: type[ResNet]
    arguments: dict[str, Any] = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: Name of the model.
        blocks: Number of blocks of c2 to c5, without inserted ones.
        c5_stride: 2, or 1 where c5 keeps the resolution of c4 (S1).
        extras: Other options of the architecture.
        input_size: Side of the square image.
        title: The paper's name of it, and where in the paper it is.
    """

    name: str
    blocks: tuple[int, int, int, int]
    c5_stride: int
    extras: Extras
    input_size: int
    title: str

    @property
    def has_position_tables(self) -> bool:
        """Whether the model is built for an image size."""
        return issubclass(self.extras.network, BoTNet | TransformerResNet)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``extras.network``."""
        arguments = {"layers": self.blocks, **self.extras.arguments}
        if self.c5_stride == 1:
            arguments["output_stride"] = 16
        if self.has_position_tables:
            arguments["img_size"] = self.input_size
        return arguments


_SE = {"block_args": {"attn_layer": "se"}}

MHSA = Extras(BoTNet)
BASIC = Extras(BoTNet, {"block": BasicBlock})
SE_SILU = Extras(BoTNet, {"act_layer": "silu", **_SE})
TINY = Extras(
    BoTNet,
    {"channels": (32, 64, 128, 256), "stem_type": "deep", "stem_width": 16},
    {"first_conv": "conv1.0", "crop_pct": 1.0},
)
NON_LOCAL = Extras(NonLocalResNet)
BOT_C4 = Extras(TransformerResNet, {"stages": ("c4",)})
BOT_C4_C5 = Extras(TransformerResNet, {"stages": ("c4", "c5")})
SE_RESNET = Extras(ResNet, {"block": Bottleneck, **_SE})
SENET = Extras(ResNet, {"block": Bottleneck, "act_layer": "silu", **_SE})

# The paper's main text gives only the depths of the SENets, 50 to 350 layers; the blocks and image
# sizes below are not from it. S0, S1, S3 and S5 have the costs that later papers quote, see
# paper_costs.py: S3's multiply-adds are those of 152 layers at 288 pixels and S5's those of 350 at
# 320. Of 350 layers with three blocks in c2 and c5, only (3, 44, 66, 3) has the parameters; it is
# ResNet-200 with c3 and c4 deepened alike. S4 is our reading: 200 layers, half way between its
# neighbors' costs. So is SiLU, as in the T series, whose baselines they are.
VARIANTS = (
    # Name, blocks of c2 to c5, stride of c5, extras, input, title.
    Variant("botnet18", (2, 2, 2, 2), 2, BASIC, 224, "BoTNet-18 (R18 variant)"),
    Variant("botnet34", (3, 4, 6, 3), 2, BASIC, 224, "BoTNet-34 (R34 variant)"),
    Variant("botnet50", (3, 4, 6, 3), 2, MHSA, 224, "BoTNet-50 (tables 1 to 7)"),
    Variant("botnet101", (3, 4, 23, 3), 2, MHSA, 224, "BoTNet-101 (tables 5 and 6)"),
    Variant("botnet152", (3, 8, 36, 3), 2, MHSA, 224, "BoTNet-152 (tables 5 and 8)"),
    Variant("botnet200", (3, 24, 36, 3), 2, MHSA, 224, "BoTNet-200 (table 8)"),
    Variant("botnet18_s1", (2, 2, 2, 2), 1, BASIC, 224, "BoTNet-S1-18, our completion"),
    Variant("botnet34_s1", (3, 4, 6, 3), 1, BASIC, 224, "BoTNet-S1-34, our completion"),
    Variant("botnet50_s1", (3, 4, 6, 3), 1, MHSA, 224, "BoTNet-S1-50 (section 4.8)"),
    Variant("botnet101_s1", (3, 4, 23, 3), 1, MHSA, 224, "BoTNet-S1-101, our completion"),
    Variant("botnet152_s1", (3, 8, 36, 3), 1, MHSA, 224, "BoTNet-S1-152, our completion"),
    Variant("botnet200_s1", (3, 24, 36, 3), 1, MHSA, 224, "BoTNet-S1-200, our completion"),
    Variant("botnet_t3", (3, 4, 6, 6), 1, SE_SILU, 224, "BoTNet-T3 = S1-59 (section 4.8)"),
    Variant("botnet_t4", (3, 4, 23, 6), 1, SE_SILU, 224, "BoTNet-T4 = S1-110 (section 4.8)"),
    Variant("botnet_t5", (3, 4, 23, 12), 1, SE_SILU, 256, "BoTNet-T5 = S1-128 (section 4.8)"),
    Variant("botnet_t6", (3, 4, 6, 12), 1, SE_SILU, 320, "BoTNet-T6 = S1-77 (section 4.8)"),
    Variant("botnet_t7", (3, 4, 23, 12), 1, SE_SILU, 384, "BoTNet-T7 = S1-128 (section 4.8)"),
    Variant("resnet50_nl_c4", (3, 4, 6, 3), 2, NON_LOCAL, 224, "R50 + NL (c4) (table 7)"),
    Variant("resnet50_bot_c4", (3, 4, 6, 3), 2, BOT_C4, 224, "R50 + BoT (c4) (table 7)"),
    Variant("resnet50_bot_c4c5", (3, 4, 6, 3), 2, BOT_C4_C5, 224, "R50 + BoT (c4, c5) (table 7)"),
    Variant("senet_s0", (3, 4, 6, 3), 2, SENET, 224, "SENet-S0, 50 layers (section 4.8)"),
    Variant("senet_s1", (3, 4, 23, 3), 2, SENET, 224, "SENet-S1, 101 layers (section 4.8)"),
    Variant("senet_s2", (3, 8, 36, 3), 2, SENET, 224, "SENet-S2, 152 layers (section 4.8)"),
    Variant("senet_s3", (3, 8, 36, 3), 2, SENET, 288, "SENet-S3, 152 layers (section 4.8)"),
    Variant("senet_s4", (3, 24, 36, 3), 2, SENET, 320, "SENet-S4, our reading (section 4.8)"),
    Variant("senet_s5", (3, 44, 66, 3), 2, SENET, 320, "SENet-S5, 350 layers (section 4.8)"),
    # Not the paper's: S5 with the ReLU of timm's SE-ResNets, and BoTNets for CPUs and tests.
    Variant(
        "se_resnet350", (3, 44, 66, 3), 2, SE_RESNET, 224, "Deeper than timm's seresnet152, ours"
    ),
    Variant("botnet26", (2, 2, 2, 2), 2, MHSA, 224, "BoTNet-26, ours: timm's resnet26"),
    Variant("botnet_tiny", (2, 2, 2, 2), 2, TINY, 128, "BoTNet-26 of half the width, ours"),
)
"""All models. ``botvision models`` and the tests compare their costs with the paper's."""


def _configuration(variant: Variant) -> dict[str, Any]:
    map_side = variant.input_size // (16 if variant.c5_stride == 1 else 32)
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, variant.input_size, variant.input_size),
        "pool_size": (map_side, map_side),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2101.11605",
        **variant.extras.configuration,
    }


def _entry_point(variant: Variant) -> Callable[..., ResNet]:
    def build(pretrained: bool = False, **kwargs: Any) -> ResNet:
        arguments = {**variant.arguments(), **kwargs}
        if not variant.has_position_tables:
            # All botvision models accept an image size, so that one call works for all.
            arguments.pop("img_size", None)
        model: ResNet = build_model_with_cfg(
            variant.extras.network, variant.name, pretrained, **arguments
        )
        return model

    build.__name__ = build.__qualname__ = variant.name
    build.__doc__ = _docstring(variant)
    return build


def _docstring(variant: Variant) -> str:
    lines = [f"{variant.title}.", "", f"Blocks {variant.blocks}, c5 stride {variant.c5_stride}."]
    for costs in PAPER_COSTS.get(variant.name, ()):
        given = f"{costs.multiply_adds / 1e9:g}G multiply-adds at {costs.input_size} pixels"
        if costs.parameters is not None:
            given = f"{costs.parameters / 1e6:g}M parameters, {given}"
        counted_with = "".join(f", with {key}={value}" for key, value in costs.arguments.items())
        lines.append(f"{costs.source}: {given}{counted_with}.")
        if costs.contradiction:
            lines.append(costs.contradiction)
    arguments = (
        "    pretrained: Load the weights of timm's registry; there are none yet.",
        f"    kwargs: Arguments of ``{variant.extras.network.__name__}``.",
    )
    return "\n".join([*lines, "", "Args:", *arguments])


# timm looks up both in the module of the function that it registers.
default_cfgs = generate_default_cfgs({row.name: _configuration(row) for row in VARIANTS})
for _row in VARIANTS:
    globals()[_row.name] = register_model(_entry_point(_row))
