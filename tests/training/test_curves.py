"""Learning curves: what is drawn of a history, and that no history breaks the drawing."""

import numpy as np
import pytest
from PIL import Image

from botvision.images.figures import save_figure
from botvision.training.curves import curves_figure, overlay_figure, smoothed


def history(steps=40, *, losses=("loss_a", "loss_b"), level=1.0, every=10, **metrics):
    """Logged steps 1, 3, 5 ...; after every tenth an evaluation with metrics that rise."""
    records = []
    for step in range(1, steps + 1):
        if step % 2:
            values = dict.fromkeys(losses, level / step)
            records.append({"step": step, "learning_rate": 0.1 / step, "losses": values})
        if step % every == 0:
            values = {name: value * step / steps for name, value in metrics.items()}
            records.append({"step": step, "epoch": step // every, "metrics": values})
    return records


def named(axes):
    return {
        line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")
    }


def test_curves_of_a_run():
    figure = curves_figure(history(top1=0.5, top5=0.9, loss=3.0), ["top1", "top5"])
    losses, rate, metrics = figure.axes
    assert named(losses).keys() == {"a", "b"}
    assert len(losses.get_lines()) == 4  # smoothed, and as they were
    assert losses.get_yscale() == "log"
    (line,) = rate.get_lines()
    assert np.allclose(line.get_ydata(), 0.1 / np.arange(1, 41, 2))
    assert named(metrics).keys() == {"top1", "top5"}
    assert named(metrics)["top1"].get_xdata().tolist() == [10, 20, 30, 40]
    assert np.allclose(named(metrics)["top1"].get_ydata(), [0.125, 0.25, 0.375, 0.5])


@pytest.mark.parametrize(("value", "top"), [(0.004, 0.0046), (0.5, 0.575), (0.99, 1.02)])
def test_low_metrics_can_be_read(value, top):
    axes = curves_figure(history(top1=value), ["top1"]).axes[2]
    assert axes.get_ylim()[1] == pytest.approx(top)
    assert -0.1 * top < axes.get_ylim()[0] <= 0


def test_metrics_that_are_no_shares_are_all_in_sight():
    axes = curves_figure(history(negative_loss=-5.0), ["negative_loss"]).axes[2]
    low, high = axes.get_ylim()
    assert low < -5
    assert high > -1.25


def test_metrics_without_truth_are_left_out():
    records = history(box_ap=0.5)
    for record in records:
        if "metrics" in record:
            record["metrics"]["box_ap_large"] = -1.0
    axes = curves_figure(records, ["box_ap", "box_ap_large", "mask_ap"]).axes[2]
    assert named(axes).keys() == {"box_ap"}


@pytest.mark.parametrize("level", [0.0, -1.0])
def test_losses_of_zero_and_less_are_drawn(level, tmp_path):
    records = history(level=level)
    figure = curves_figure(records, [])
    losses = figure.axes[0]
    assert losses.get_yscale() == "linear"
    assert losses.get_ylim()[0] < level / 2 or level == 0
    save_figure(figure, tmp_path / "results.png")


def test_a_loss_that_comes_later_is_drawn():
    # A resumed run of a newer version may log what the older one did not.
    late = history(20, losses=("loss_a", "loss_new"))
    for record in late:
        record["step"] += 40
    lines = named(curves_figure([*history(), *late], []).axes[0])
    assert lines.keys() == {"a", "b", "new"}
    assert lines["new"].get_xdata().min() > 40


def test_smoothing():
    noise = np.random.default_rng(0).normal(size=2000)
    assert np.std(smoothed(noise.tolist())) < 0.2 * np.std(noise)
    line = np.arange(2000.0)
    # It looks both ways: a curve is not shifted.
    assert np.abs(np.array(smoothed(line.tolist())) - line)[300:-300].max() < 1
    assert smoothed([3.0] * 500) == pytest.approx([3.0] * 500)
    assert smoothed([5.0, 1.0, 2.0]) == [5.0, 1.0, 2.0]
    assert smoothed([]) == []


@pytest.mark.parametrize("records", [[], history(1), history(10, top1=0.0)[-1:]])
def test_histories_of_little_are_drawn(records, tmp_path):
    save_figure(curves_figure(records, ["top1"]), tmp_path / "results.png")
    with Image.open(tmp_path / "results.png") as image:
        assert np.asarray(image.convert("L")).std() > 5


def test_overlay_has_a_curve_for_each_run():
    runs = {
        "one": history(top1=0.5),
        "two": history(top1=0.25, top5=0.9),
        "begun": history(1),
    }
    figure = overlay_figure(runs, ["top1", "top5"])
    losses, top1, top5 = figure.axes
    assert named(losses).keys() == set(runs)
    assert np.allclose(named(losses)["begun"].get_ydata(), 2.0)  # the sum of the two losses
    assert named(top1).keys() == {"one", "two"}
    assert named(top1)["two"].get_ydata().max() == 0.25
    assert named(top5).keys() == {"two"}
    assert named(losses)["one"].get_color() == named(top1)["one"].get_color()
    assert named(losses)["one"].get_color() != named(losses)["two"].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(runs)


def test_overlay_of_many_runs_is_written(tmp_path):
    runs = {f"_run ${i}": history(20, level=i + 1.0, top1=0.5) for i in range(12)}
    figure = overlay_figure(runs, ["top1"])
    save_figure(figure, tmp_path / "curves.png")
    lines = figure.axes[1].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
    with Image.open(tmp_path / "curves.png") as image:
        assert np.asarray(image.convert("L")).std() > 5
