"""Health of a trained model's attention on a data folder, and whether the model uses it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from botvision.attention.ablation import ABLATIONS, ablated
from botvision.attention.health import LayerHealth, recording_health
from botvision.inspection.attention_maps import layers_of
from botvision.predict.evaluation import evaluate
from botvision.predict.loading import load
from botvision.tasks.predictor import Predictor
from botvision.tasks.task import find_task

_IMAGES = 32

StepProgress = Callable[[str, int, int], None]
"""Called with what is done, the number of images done, and their total."""


@dataclass(frozen=True)
class AblatedMetrics:
    """Metrics of a model whose attention is disturbed, see ``ablated``.

    Attributes:
        ablation: "no_positions", "uniform" or "other_query".
        layers: Names of the disturbed layers.
        metrics: The task's main metrics.
    """

    ablation: str
    layers: tuple[str, ...]
    metrics: dict[str, float]


@dataclass(frozen=True)
class AttentionReport:
    """What a model's attention does, and what becomes of the model without it.

    Attributes:
        images: Number of images that the health is of.
        layers: Health of each layer, in the order in which the layers run.
        metrics: The task's main metrics, undisturbed; None unless asked for.
        ablations: The same with disturbed attention: each kind in all layers, then in one layer
            after the other where there are several.
    """

    images: int
    layers: list[LayerHealth]
    metrics: dict[str, float] | None = None
    ablations: tuple[AblatedMetrics, ...] = ()


def measure_attention(
    weights: str | Path | Predictor[Any],
    data: str | Path | None = None,
    *,
    split: str | None = None,
    ablate: bool = False,
    device: str | torch.device | None = None,
    progress: StepProgress | None = None,
) -> AttentionReport:
    """Measure the attention of a weights file on the first 32 images of a data folder.

    Health says that attention could matter, use that it does: with ``ablate`` the model is
    evaluated on all images, as it is and with its attention disturbed.

    Args:
        weights: See ``load``; or a loaded predictor.
        data: Data folder or its address; None: the one it was trained on.
        split: Split of the data; None: the one that the training evaluated.
        ablate: Whether to evaluate with disturbed attention too.
        device: See ``load``.
        progress: Called while images are evaluated.

    Raises:
        BotvisionError: If the weights or the data cannot be used, or the model has no attention.
    """
    predictor = weights if isinstance(weights, Predictor) else load(weights, device)
    layers = layers_of(predictor)
    headlines = find_task(predictor.description.task).headlines

    def metrics_of(what: str, *, until: int | None = None) -> dict[str, float]:
        def report(done: int, total: int) -> None:
            wanted = total if until is None else min(total, until)
            if progress is not None:
                progress(what, min(done, wanted), wanted)
            if until is not None and done >= until:
                raise _EnoughError

        metrics = evaluate(predictor, data, split=split, progress=report)
        return {name: metrics[name] for name in headlines if name in metrics}

    if not ablate:
        with recording_health(predictor.model, _IMAGES) as recorder, suppress(_EnoughError):
            metrics_of("measure", until=_IMAGES)
        return AttentionReport(recorder.images, recorder.layers())
    with recording_health(predictor.model, _IMAGES) as recorder:
        metrics = metrics_of("measure")
    results = []
    chosen = [layers, *([each] for each in layers if len(layers) > 1)]
    for ablation in ABLATIONS:
        for some in chosen:
            names = tuple(name for name, _ in some)
            with ablated([layer for _, layer in some], ablation):
                changed = metrics_of(ablation.replace("_", " "))
            results.append(AblatedMetrics(ablation, names, changed))
    return AttentionReport(recorder.images, recorder.layers(), metrics, tuple(results))


class _EnoughError(Exception):
    """The images seen suffice."""
