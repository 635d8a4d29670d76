"""Selection of the best weights of a run, and early stopping."""

import math
from dataclasses import replace

from botvision.training.settings import TrainingSettings
from botvision.training.state import Progress

UNDEFINED = -1.0
"""Value of a COCO metric without ground truth of its kind."""

_LEARNED = 0.01  # smaller metrics are those of a network that has hardly begun to learn


def defined(value: float | None) -> float | None:
    """Return a metric's value, or None if it is undefined: -1, NaN or missing."""
    return None if value is None or value == UNDEFINED or math.isnan(value) else value


def after_evaluation(
    progress: Progress, metric: float, settings: TrainingSettings
) -> tuple[Progress, bool]:
    """Return the progress after an evaluation, and whether its weights are the best so far.

    As long as the metric is undefined or zero, the latest weights are the best.

    Args:
        progress: Progress before the evaluation; its ``step`` is that of the evaluation.
        metric: Value of the metric that selects the best weights; higher is better.
        settings: Training settings of the run.
    """
    value, best = defined(metric), progress.best
    improved = best is None if value is None else best is None or value > best or value == best == 0
    waited = uses_up_patience(best, progress.step, settings.warmup_steps)
    return replace(
        progress,
        evaluated=progress.step,
        best=value if improved else best,
        since_best=0 if improved else progress.since_best + waited,
    ), improved


def uses_up_patience(best: float | None, step: int, warmup_steps: int) -> bool:
    """Return whether an evaluation that is no better than the best counts for early stopping.

    In the warm-up, and until the metric has reached 0.01, a network has hardly begun to learn: that
    it is not getting better says nothing.

    Args:
        best: Best value of the metric so far; None if there is none.
        step: Step of the evaluation.
        warmup_steps: Number of steps of the warm-up.
    """
    return best is not None and not 0 <= best < _LEARNED and step > warmup_steps


def gave_up(progress: Progress, settings: TrainingSettings) -> bool:
    """Return whether the run has ended for want of improvement."""
    return settings.patience is not None and progress.since_best >= settings.patience


def short_run_note(settings: TrainingSettings, total_steps: int, steps_per_epoch: int) -> str:
    """Return a line if the warm-up takes more than a third of all epochs; else "".

    Args:
        settings: Training settings of the run.
        total_steps: Number of steps of the run.
        steps_per_epoch: Number of steps of an epoch.
    """
    if settings.max_steps is not None or 3 * settings.warmup_steps <= total_steps:
        return ""
    return (
        f"the warm-up takes {settings.warmup_steps} of only {total_steps} steps, with "
        f"{steps_per_epoch} per epoch; a higher training.epochs trains longer"
    )
