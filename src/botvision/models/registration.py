"""Register the table of variants with timm: one configuration and entry point per row."""

from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import ResNet

from botvision.models.paper_costs import PAPER_COSTS
from botvision.models.variants import VARIANTS, Variant


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
    lines += [
        "",
        "Args:",
        "    pretrained: Load the weights of timm's registry; there are none yet.",
    ]
    lines.append(f"    kwargs: Arguments of ``{variant.extras.network.__name__}``.")
    return "\n".join(lines)


# timm looks up both in the module of the function that it registers.
default_cfgs = generate_default_cfgs({row.name: _configuration(row) for row in VARIANTS})
for _row in VARIANTS:
    globals()[_row.name] = register_model(_entry_point(_row))
