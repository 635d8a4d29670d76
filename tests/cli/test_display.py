"""Progress on terminals of the usual widths, and in logs."""

import io
import re
import time

import pytest
from rich.console import Console

from botvision.cli.display import TrainingDisplay, counting, metrics_table
from botvision.training.speed import StepFigures

LOSSES = {
    "loss_classifier": 2.3587,
    "loss_box_reg": 0.1441,
    "loss_mask": 0.7519,
    "loss_objectness": 0.693,
    "loss_rpn_box_reg": 0.0782,
}
HEADLINES = ("mask_ap", "box_ap", "mask_ap50", "box_ap50", "mask_ap75", "box_ap75")


def terminal(width):
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        force_interactive=True,
        color_system=None,
    )


def log():
    return Console(file=io.StringIO(), force_terminal=False, force_interactive=False)


def figures(step=101, losses=LOSSES, memory=None):
    return StepFigures(
        step=step,
        losses=losses,
        learning_rate=0.00125,
        images_per_second=12.34,
        waiting=0.031,
        memory=memory,
    )


def metrics(number):
    return {name: number / 100 + place / 10 for place, name in enumerate(HEADLINES)}


def last_frame(console):
    """The display as it stays; the frames of a terminal are drawn over each other."""
    frames = re.split(r"(?:\x1b\[\d?[AK]|\r)+", console.file.getvalue())
    return re.sub(r"\x1b\[\?25[lh]", "", frames[-1]).rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_terminal_shows_count_speed_losses_and_evaluations(width):
    console = terminal(width)
    with TrainingDisplay.showing(console, 100, 4000, HEADLINES) as shown:
        shown.step(figures(memory=10.25))
        for epoch in range(1, 11):
            shown.evaluated(epoch, metrics(epoch), best=epoch % 2 == 0)
    lines = last_frame(console)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text, "something was cut short"
    for part in ("101/4000", "left", "loss 4.026: classifier 2.359", "waiting 3%"):
        assert part in text
    assert "learning rate 0.00125  12.3 images/s" in text
    assert "10.2 GiB" in text
    rows = [line.split() for line in lines]
    header = next(row for row in rows if "epoch" in row)
    names = header[1:-1]
    assert header == ["epoch", *names, "loss"]
    # The first ones, as many as there is room for.
    assert tuple(names) == HEADLINES[: {60: 3, 80: 5}.get(width, 6)]
    evaluations = rows[rows.index(header) + 2 :][:8]
    assert [row[0] for row in evaluations] == [str(epoch) for epoch in range(3, 11)]
    values = [f"{value:.3f}" for value in list(metrics(10).values())[: len(names)]]
    assert evaluations[-1] == ["10", *values, "4.026", "best"]
    assert "best" not in evaluations[-2]


def test_terminal_begins_without_a_table_and_without_losses():
    console = terminal(80)
    with TrainingDisplay.showing(console, 0, 10, ()):
        pass
    assert "epoch" not in console.file.getvalue()
    assert "0/10" in last_frame(console)[-1]


def test_memory_of_a_cpu_is_not_shown():
    console = terminal(80)
    with TrainingDisplay.showing(console, 0, 10, ()) as shown:
        shown.step(figures())
    assert "memory" not in console.file.getvalue()


def test_losses_are_smoothed():
    console = terminal(200)
    with TrainingDisplay.showing(console, 0, 10, ()) as shown:
        shown.step(figures(1, {"loss_mask": 1.0, "loss_box": 0.5}))
        shown.step(figures(2, {"loss_mask": 2.0, "loss_box": 0.5}))
    assert "loss 1.550: mask 1.050  box 0.500" in console.file.getvalue()


def test_a_classifier_has_one_loss_and_other_metrics():
    console = terminal(80)
    with TrainingDisplay.showing(console, 0, 10, ("top1", "top5")) as shown:
        shown.step(figures(1, {"loss": 2.0}))
        shown.evaluated(3, {"top1": 0.25, "per_class": {"a": None}}, best=True)
    rows = [line.split() for line in last_frame(console)]
    assert ["3", "0.250", "-", "2.000", "best"] in rows
    assert ["loss", "2.000"] in rows


def test_notes_stay_above_the_display():
    console = terminal(80)
    with TrainingDisplay.showing(console, 0, 10, ()) as shown:
        shown.note("weights [bold] of backbone.safetensors: 0.5")
    assert "weights [bold] of backbone.safetensors: 0.5\n" in console.file.getvalue()


def test_an_evaluation_has_a_bar_that_goes_again():
    console = terminal(80)
    with TrainingDisplay.showing(console, 0, 10, ()) as shown:
        with shown.evaluating() as progress:
            progress(3, 6)
            deadline = time.monotonic() + 10  # a frame is drawn four times a second
            while "3/6" not in console.file.getvalue() and time.monotonic() < deadline:
                time.sleep(0.05)
        with pytest.raises(ValueError, match="wrong"), shown.evaluating():
            raise ValueError("wrong")
    assert "3/6" in console.file.getvalue()
    assert "evaluate" not in "".join(last_frame(console))


def test_log_has_a_line_an_evaluation_and_few_others(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    console = log()
    with TrainingDisplay.showing(console, 0, 100, HEADLINES) as shown:
        shown.note("a note")
        for step in range(1, 101):
            clock[0] += 1.0
            shown.step(figures(step))
            if step % 50 == 0:
                with shown.evaluating() as progress:
                    progress(3, 6)
                shown.evaluated(step // 50, metrics(step), best=step == 50)
    text = console.file.getvalue()
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text) is None, "control characters"
    lines = text.splitlines()
    assert lines[0] == "a note"
    steps = [line.split()[1] for line in lines if line.startswith("step ")]
    assert steps == ["1/100", "61/100"]
    assert "loss 4.026: classifier" in lines[1]
    assert "12.3 images/s  waiting 3%" in lines[1]
    evaluations = [line for line in lines if line.startswith("epoch ")]
    assert evaluations[0].startswith("epoch 1: mask_ap 0.500  box_ap 0.600")
    assert [line.endswith("  best") for line in evaluations] == [True, False]
    assert len(lines) == 1 + 2 + 2


def test_nothing_is_shown_before_something_is_done():
    # An error before the first image is then the only line.
    console = terminal(80)
    with pytest.raises(ValueError, match="wrong"), counting(console, "predict"):
        raise ValueError("wrong")
    assert "predict" not in console.file.getvalue()


def table_rows(task, metrics):
    console = log()
    console.print(metrics_table(task, metrics, "A title"))
    assert "A title" in console.file.getvalue()
    return [re.split(r"\s*[│┃]\s*", line)[1:-1] for line in console.file.getvalue().splitlines()]


def test_metrics_table_of_a_detector():
    rows = table_rows(
        "detection",
        {
            "box_ap": 0.5,
            "box_ap_large": -1.0,
            "box_ap_per_class": {"cat": 0.75, "dog": -1.0},
            "box_ap_large_per_class": {"cat": 0.123, "dog": -1.0},
            "mask_ap": 0.25,
            "mask_ap_large": 0.0,
            "mask_ap_per_class": {"cat": 0.5, "dog": -1.0},
            "mask_ap_large_per_class": {"cat": 0.123, "dog": -1.0},
        },
    )
    filled = [row for row in rows if row]
    assert filled == [
        ["metric", "box", "mask"],
        ["ap", "0.500", "0.250"],
        ["ap_large", "-", "0.000"],
        ["ap of cat", "0.750", "0.500"],
        ["ap of dog", "-", "-"],
    ]


def test_metrics_table_of_a_classifier():
    rows = table_rows(
        "classification",
        {
            "top1": 0.5,
            "top5": 1.0,
            "loss": 1.25,
            "negative_loss": -1.25,
            "per_class": {"[cat]": 0.75, "dog": None},
        },
    )
    assert [row for row in rows if row] == [
        ["metric", "value"],
        ["top1", "0.500"],
        ["top5", "1.000"],
        ["loss", "1.250"],
        ["accuracy of [cat]", "0.750"],
        ["accuracy of dog", "-"],
    ]
