"""What ends a run early: failures are one line that says what to do, and signals save the run."""

import os
import signal
import time

import pytest
import torch
import yaml

from botvision.errors import BotvisionError, Interrupted
from botvision.training.failures import (
    check_losses,
    clip_gradient,
    interruptible,
    one_line_failures,
)
from botvision.training.run_folder import RunFolder
from botvision.training.sampling import BatchPlan

PLAN = BatchPlan(micro_batch_size=16, processes=2, accumulation=3, lr_factor=1.0)


def fail_on_gpu():
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15 GiB"
    )


def fail_on_cpu():
    torch.empty(1 << 52)


@pytest.mark.parametrize("fail", [fail_on_gpu, fail_on_cpu])
def test_out_of_memory_names_what_helps(fail):
    with pytest.raises(BotvisionError) as raised, one_line_failures(7, PLAN):
        fail()
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("step 7: out of memory with 16 images at once (")
    for knob in (
        "training.micro_batch_size",
        "model.image_size",
        "training.gradient_checkpointing=true",
    ):
        assert knob in message


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="shapes"), one_line_failures(1, PLAN):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("where", ["losses", "evaluate"])
def test_loop_says_it_too(where, regress, regression):
    task = regression()
    setattr(task, where, lambda *_: torch.empty(1 << 52))
    with pytest.raises(BotvisionError, match="step 1: out of memory with 32 images at once"):
        regress(task, epochs=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite(value):
    check_losses({"box": 1.0, "mask": 2.0}, 3)
    with pytest.raises(BotvisionError, match=r"step 3: expected finite losses, got box 1, mask"):
        check_losses({"box": 1.0, "mask": value}, 3)


@pytest.mark.parametrize("largest", [None, 0.5, 100.0])
def test_gradient_is_scaled_down_to_a_norm_at_most(largest):
    model = torch.nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = torch.cat([p.grad.flatten() for p in model.parameters()])
    clip_gradient(model, largest, 1)
    after = torch.cat([p.grad.flatten() for p in model.parameters()])
    share = 1.0 if largest is None else min(1.0, largest / float(before.norm()))
    assert torch.allclose(after, share * before, rtol=1e-4)


@pytest.mark.parametrize("largest", [None, 0.5])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_is_found_whether_it_is_clipped_or_not(value, largest):
    model = torch.nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.bias.grad[1] = value
    with pytest.raises(BotvisionError, match="step 9: expected a finite gradient") as raised:
        clip_gradient(model, largest, 9)
    assert "\n" not in str(raised.value)


SETTINGS = {"batch_size": 8, "epochs": 3, "evaluate_every": 1, "momentum": 0.9}


def asked_at(task, call, number):
    """A task that sends its process a signal when its losses are asked for the n-th time."""
    losses, calls = task.losses, []

    def counted(*arguments):
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return losses(*arguments)

    task.losses = counted
    return task


AVERAGED = {"ema_decay": 0.9, "micro_batch_size": 2}
WORKERS = {"num_workers": 2, "clip_grad_norm": 1.0}
ADAMW = {"optimizer": "adamw", "ema_decay": 0.9, "save_every": 1}


@pytest.mark.parametrize(
    ("settings", "step", "number"),
    [
        *(({}, step, signal.SIGTERM) for step in (1, 4, 6, 12)),  # 4 and 12 end an epoch
        ({}, 6, signal.SIGINT),
        *((settings, 6, signal.SIGTERM) for settings in (AVERAGED, WORKERS, ADAMW)),
    ],
)
def test_stopped_run_is_saved_and_goes_on_bit_for_bit(
    settings, step, number, regress, network, same_run, tmp_path
):
    settings = {**SETTINGS, **settings}
    _, whole = regress(network(), tmp_path / "whole", **settings)
    run = RunFolder(tmp_path / "run")
    parts = 8 // settings.get("micro_batch_size", 8)
    task = asked_at(network(), (step - 1) * parts + 1, number)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as raised:
        regress(task, run.path, **settings)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert raised.value.signal == number
    assert str(raised.value) == (
        f"stopped after step {step} of 12, saved; resume the run in {run.path}"
    )
    state = torch.load(run.state, weights_only=True)
    assert state["progressed"]["step"] == step
    regress(network(), run.path, resume=True, **settings)
    same_run(run, whole)


def test_stopped_in_an_evaluation(regress, network, same_run, tmp_path):
    """It is done once in the end, and the run's records are those of a run that went through."""
    _, whole = regress(network(), tmp_path / "whole", **SETTINGS)
    task, evaluations = network(), []

    def evaluate(model, progress):
        evaluations.append(None)
        if len(evaluations) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return network.evaluate(task, model, progress)

    task.evaluate = evaluate
    with pytest.raises(Interrupted, match="stopped after step 8 of 12"):
        regress(task, tmp_path / "run", **SETTINGS)
    run = RunFolder(tmp_path / "run")
    assert torch.load(run.state, weights_only=True)["progressed"]["evaluated"] == 4
    again, evaluations = network(), []
    again.evaluate = lambda *each: evaluations.append(None) or network.evaluate(again, *each)
    regress(again, run.path, resume=True, **SETTINGS)
    assert len(evaluations) == 2
    same_run(run, whole)


def test_second_signal_stops_at_once():
    with interruptible() as request:
        assert not request
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def lines_of(run):
    return len(run.history())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_command_says_how_to_go_on(
    number, code, make_recipe, trained_run, forked_command, same_run, tmp_path
):
    recipe = tmp_path / "recipe.yaml"
    content = make_recipe("training.num_workers=2", "name=asked").model_dump(mode="json")
    recipe.write_text(yaml.safe_dump(content))
    run = RunFolder(tmp_path / "instance_segmentation" / "asked")
    forks = forked_command("train", recipe, "--runs", tmp_path)
    while lines_of(run) < 2:
        assert forks.processes[0].is_alive(), forks.text()
        time.sleep(0.01)
    os.killpg(forks.processes[0].pid, number)  # the workers get it too
    assert forks.wait() == [code], forks.text()
    assert "Traceback" not in forks.text()
    last = forks.text().splitlines()[-1]
    assert last.startswith("stopped after step ")
    assert last.endswith(f"saved; resume the run in {run.path}")
    if number == signal.SIGINT:  # what is saved does not depend on the signal
        done = forked_command("train", "--resume", run.path)
        assert done.wait() == [0], done.text()
        same_run(run, trained_run)
