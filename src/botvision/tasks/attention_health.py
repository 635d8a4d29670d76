"""Health of a model's attention as records of a run, a line about it, and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from botvision.attention.health import LayerHealth

HEALTH_IMAGES = 16
"""Number of images of an evaluation whose attention is measured."""

_CURVES = (
    ("entropy", "Entropy, fraction of the maximum"),
    ("mutual_information", "Mutual information of query and key, nats"),
    ("content_std", "Standard deviation of the logits over the keys"),
)


def health_record(layers: Sequence[LayerHealth]) -> dict[str, Any]:
    """Return the figures by layer, ready for JSON; see ``LayerHealth``."""
    return {
        layer.layer: {
            **{key: value for key, value in asdict(layer).items() if key != "layer"},
            "collapsed": layer.collapsed,
        }
        for layer in layers
    }


def tracked_values(layers: Sequence[LayerHealth]) -> dict[str, float]:
    """Return what trackers are sent: the mean over the heads of some figures of each layer."""
    names = ("entropy", "mutual_information", "content_std", "position_std")
    return {
        f"attention/{layer.layer}/{name}": float(np.mean(getattr(layer, name)))
        for layer in layers
        for name in names
    }


def collapse_note(layers: Sequence[LayerHealth]) -> str:
    """Return a line about heads that have collapsed; "" if none has."""
    places = [f"{short_name(layer.layer)} {head}" for layer in layers for head in layer.collapsed]
    heads = sum(len(layer.entropy) for layer in layers)
    if not places:
        return ""
    return (
        f"attention: {len(places)} of {heads} heads have collapsed, they look at the same few "
        f"places from everywhere ({', '.join(places)}); a smaller training.attention_lr_scale, "
        "such as 0.1, keeps them apart"
    )


def short_name(layer: str) -> str:
    """Return a layer's name without the parts that all layers of a network have."""
    return layer.removeprefix("backbone.body.").removesuffix(".conv2.attention")


def draw_health_curves(axes: Sequence[Any], history: Sequence[Mapping[str, Any]]) -> None:
    """Draw the figures over the steps of a run: the mean over the heads and their range.

    Args:
        axes: Three matplotlib axes, for entropy, mutual information and logits.
        history: Lines of ``metrics.jsonl``.
    """
    records = [record for record in history if "attention" in record]
    steps = [record["step"] for record in records]
    layers = list(dict.fromkeys(name for record in records for name in record["attention"]))
    for panel, (figure, title) in zip(axes, _CURVES, strict=True):
        for number, layer in enumerate(layers):
            heads = np.array([record["attention"][layer][figure] for record in records])
            style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "o", "markersize": 4}
            panel.plot(steps, heads.mean(1), label=short_name(layer), **style)
            panel.fill_between(steps, heads.min(1), heads.max(1), color=style["color"], alpha=0.2)
            if figure == "content_std":
                positions = [
                    np.mean(record["attention"][layer]["position_std"]) for record in records
                ]
                panel.plot(steps, positions, linestyle=":", **style)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("step")
        panel.set_ylim(bottom=0, top=1.02 if figure == "entropy" else None)
        panel.grid(alpha=0.3)
    axes[-1].set_yscale("log")
    axes[-1].set_ylim(auto=True)
    axes[-1].set_title("Deviation of the logits, content (line), position (dots)", fontsize=10)
    axes[0].legend(fontsize="small", title="layer, mean and range of its heads")
