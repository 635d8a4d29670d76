"""Progress on terminals of the usual widths."""

import io

import pytest
from rich.console import Console

from botvision.cli.display import TrainingDisplay, counting, metrics_table

LOSSES = {
    "loss_classifier": 2.3587,
    "loss_box_reg": 0.1441,
    "loss_mask": 0.7519,
    "loss_objectness": 0.693,
    "loss_rpn_box_reg": 0.0782,
}


def terminal(width):
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_bar_shows_count_speed_loss_and_time_left(width):
    console = terminal(width)
    with TrainingDisplay.showing(console, 100, 4000) as shown:
        shown.step(101, LOSSES, 12.34)
    # The frames of a terminal are drawn over each other; the last one is complete.
    last = console.file.getvalue().split("\r")[-1]
    assert "train" in last
    assert "101/4000" in last
    assert "12.3 images/s" in last
    assert "left" in last
    assert "-:--:--" in last or ":00" in last
    assert "2.3" in last or "4.0" in last, "neither a loss nor their sum"


def test_losses_are_smoothed():
    console = terminal(200)
    with TrainingDisplay.showing(console, 0, 10) as shown:
        shown.step(1, {"loss_mask": 1.0}, 1.0)
        shown.step(2, {"loss_mask": 2.0}, 1.0)
    assert "mask 1.050" in console.file.getvalue()


def test_evaluation_is_a_line_of_its_own():
    console = terminal(160)
    with TrainingDisplay.showing(console, 0, 10) as shown:
        with shown.evaluating() as progress:
            progress(3, 6)
        shown.evaluated(2, {"box_ap": 0.5, "mask_ap": 0.25, "box_ar1": 0.1}, best=True)
    assert "epoch 2: box_ap 0.500  mask_ap 0.250  best" in console.file.getvalue()


def test_nothing_is_shown_before_something_is_done():
    # An error before the first picture is then the only line.
    console = terminal(80)
    with pytest.raises(ValueError, match="wrong"), counting(console, "predict"):
        raise ValueError("wrong")
    assert "predict" not in console.file.getvalue()


def test_metrics_table():
    console = terminal(80)
    metrics = {"box_ap": 0.5, "box_ap_large": -1.0, "box_ap_per_class": {"cat": 0.75, "dog": -1.0}}
    console.print(metrics_table(metrics, title="A title"))
    text = console.file.getvalue()
    assert "A title" in text
    assert "0.500" in text
    assert "ap of cat" in text
    assert "-1" not in text
