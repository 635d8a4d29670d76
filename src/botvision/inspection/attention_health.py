"""Health of a model's attention as records of a run, a line about it, and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from botvision.attention.health import LayerHealth
from botvision.images.figures import save_stacked
from botvision.inspection.attention_maps import attention_figure, attention_maps
from botvision.tasks.predictor import Predictor

HEALTH_IMAGES = 16
"""Number of images of an evaluation whose attention is measured."""

_CURVES = (
    ("entropy", "Entropy, fraction of the maximum"),
    ("mutual_information", "Mutual information of query and key, nats"),
    ("content_std", "Deviation of the logits: content (line), position (dots)"),
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
    places = []
    for layer in layers:
        if layer.collapsed:
            every = len(layer.collapsed) == len(layer.entropy)
            which = "all" if every else ", ".join(map(str, layer.collapsed))
            places.append(f"{short_name(layer.layer)}: {which}")
    if not places:
        return ""
    collapsed = sum(len(layer.collapsed) for layer in layers)
    heads = sum(len(layer.entropy) for layer in layers)
    return (
        f"attention: {collapsed} of {heads} heads have collapsed and look at the same few places "
        f"from everywhere ({'; '.join(places)}); a smaller training.attention_lr_scale, such as "
        "0.1, keeps attention alive"
    )


def short_name(layer: str) -> str:
    """Return a layer's name without the parts that all layers of a network have."""
    return layer.removeprefix("backbone.body.").removesuffix(".conv2.attention")


def draw_attention_health(
    path: Path,
    history: Sequence[Mapping[str, Any]],
    example: tuple[Predictor[Any], Image.Image, tuple[int, int]] | None,
) -> None:
    """Draw the attention of a run: its health over the steps, and where a pixel looks now.

    Args:
        path: PNG to write or replace.
        history: Lines of ``metrics.jsonl``, at least one with figures of attention.
        example: See ``Trainable.example``; None: curves only.
    """
    figures = [health_curves(history)]
    if example is not None:
        predictor, image, at = example
        figures.append(attention_figure(image, at, attention_maps(predictor, image, at)))
    save_stacked(figures, path)


def health_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Return a figure of health over the steps: mean over the heads, and their range.

    Args:
        history: Lines of ``metrics.jsonl``.
    """
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    axes = figure.subplots(1, 3).tolist()
    records = [record for record in history if "attention" in record]
    steps = [record["step"] for record in records]
    layers = list(dict.fromkeys(name for record in records for name in record["attention"]))
    for panel, (name, title) in zip(axes, _CURVES, strict=True):
        for number, layer in enumerate(layers):
            figures = [record["attention"][layer] for record in records]
            heads = np.array([each[name] for each in figures])
            style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "o", "markersize": 4}
            panel.plot(steps, heads.mean(1), label=short_name(layer), **style)
            panel.fill_between(steps, heads.min(1), heads.max(1), color=style["color"], alpha=0.2)
            position = np.array([each["position_std"] for each in figures])
            if name == "content_std" and position.any():
                panel.plot(steps, position.mean(1), linestyle=":", **style)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    entropy, information, logits = axes
    entropy.set_ylim(0, 1.02)
    information.set_ylim(bottom=0)
    # The logits of a collapse are a hundred times as large as those of a new network.
    logits.set_yscale("symlog", linthresh=1)
    top = max(1.2, 1.2 * logits.dataLim.y1)
    logits.set_ylim(0, top)
    ticks = [tick for tick in (0, 0.2, 0.4, 0.6, 0.8, 1, 2, 5, 10, 20, 50, 100, 200) if tick <= top]
    logits.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    logits.yaxis.set_minor_locator(NullLocator())
    entropy.legend(fontsize="small", title="mean and range of the heads")
    return figure
