"""What goes wrong in a step is one line that says what to do."""

import pytest
import torch

from botvision.errors import BotvisionError
from botvision.training.failures import check_losses, clip_gradient, one_line_failures
from botvision.training.sampling import BatchPlan

PLAN = BatchPlan(micro_batch_size=16, processes=2, accumulation=3, rate_factor=1.0)


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
        "--auto-batch",
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
