"""Which weights are the best, and when a run ends early."""

import math

import pytest

from botvision.training.selection import after_evaluation, gave_up, short_run_note
from botvision.training.settings import TrainingSettings
from botvision.training.state import Progress


def course(values, *, warmup_steps=0, patience=2, steps_per_epoch=10):
    """Steps of the best weights after each evaluation, and how many evaluations there were."""
    settings = TrainingSettings(warmup_steps=warmup_steps, patience=patience)
    progress, chosen = Progress(), []
    for number, value in enumerate(values, start=1):
        progress.step = number * steps_per_epoch
        progress, best = after_evaluation(progress, value, settings)
        chosen.append(number if best else chosen[-1])
        if gave_up(progress, settings):
            break
    return chosen


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([0.3, 0.2, 0.4, 0.4, 0.1, 0.9], [1, 1, 3, 3, 3]),
        # Undefined: the latest is the best, and nothing ends the run.
        ([-1.0] * 6, [1, 2, 3, 4, 5, 6]),
        ([math.nan] * 6, [1, 2, 3, 4, 5, 6]),
        ([-1.0, 0.3, -1.0, 0.2], [1, 2, 2, 2]),
        # Nothing learned yet: neither ends the run, and of equals the later has learned longer.
        ([0.0] * 6, [1, 2, 3, 4, 5, 6]),
        ([0.004, 0.0, 0.0, 0.0, 0.0, 0.5], [1, 1, 1, 1, 1, 6]),
        # Negative values, as of a loss with its sign changed, are values.
        ([-3.0, -2.0, -2.5, -2.5, -1.0], [1, 2, 2, 2]),
    ],
)
def test_selection(values, chosen):
    assert course(values) == chosen


@pytest.mark.parametrize(("warmup_steps", "evaluations"), [(0, 3), (20, 4), (50, 7), (65, 8)])
def test_patience_begins_after_the_warm_up(warmup_steps, evaluations):
    assert len(course([0.3] + [0.2] * 9, warmup_steps=warmup_steps)) == evaluations


def test_a_run_that_is_mostly_warm_up_is_said():
    settings = TrainingSettings(warmup_steps=50)
    assert "50 of only 120 steps, with 3 per epoch" in short_run_note(settings, 120, 3)
    assert short_run_note(settings, 150, 3) == ""
    assert short_run_note(TrainingSettings(warmup_steps=50, max_steps=2), 2, 3) == ""
