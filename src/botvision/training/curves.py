"""Learning curves of a run as a picture."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from botvision.files import replacing


def draw_curves(history: list[dict[str, Any]], path: Path) -> None:
    """Draw losses, learning rate and average precision over the steps.

    Args:
        history: Lines of ``metrics.jsonl``.
        path: PNG to write or replace.
    """
    steps = [record for record in history if "losses" in record]
    evaluations = [record for record in history if "metrics" in record]
    figure = Figure(figsize=(13, 4), layout="constrained")
    losses, rate, precision = figure.subplots(1, 3)
    for name in steps[0]["losses"] if steps else ():
        losses.plot(
            [record["step"] for record in steps],
            _smoothed([record["losses"][name] for record in steps]),
            label=name,
        )
    losses.set(title="Training losses (smoothed)", xlabel="step", yscale="log")
    rate.plot([r["step"] for r in steps], [r["learning_rate"] for r in steps])
    rate.set(title="Learning rate", xlabel="step")
    for name in _shown_metrics(evaluations):
        precision.plot(
            [record["step"] for record in evaluations],
            [record["metrics"][name] for record in evaluations],
            marker="o",
            label=name,
        )
    precision.set(title="Validation", xlabel="step", ylim=(0, 1))
    for axes in (losses, rate, precision):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _shown_metrics(evaluations: list[dict[str, Any]]) -> list[str]:
    names = ("box_ap", "box_ap50", "mask_ap", "mask_ap50")
    return [name for name in names if evaluations and name in evaluations[0]["metrics"]]


def _smoothed(values: list[float], keep: float = 0.9) -> list[float]:
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else keep * smoothed[-1] + (1 - keep) * value)
    return smoothed
