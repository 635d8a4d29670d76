"""What can go wrong in a step, as one line that says what to do."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from botvision.errors import BotvisionError
from botvision.training.sampling import BatchPlan

_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")


def check_losses(losses: dict[str, float], step: int) -> None:
    """See that a step's losses are finite.

    Args:
        losses: Their means over all processes.
        step: Number of the step, from 1.

    Raises:
        BotvisionError: If one is not.
    """
    if not all(math.isfinite(value) for value in losses.values()):
        shown = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
        raise _diverged(step, f"expected finite losses, got {shown}")


def clip_gradient(model: nn.Module, largest: float | None, step: int) -> None:
    """Scale the gradient down to a norm, and see that it is finite: one that is not would be saved.

    Args:
        model: Holds the gradients.
        largest: Norm that is allowed; None leaves the gradient as it is.
        step: Number of the step, from 1.

    Raises:
        BotvisionError: If the gradient is not finite.
    """
    parameters = [each for each in model.parameters() if each.grad is not None]
    norm = nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if not math.isfinite(norm):
        raise _diverged(step, f"expected a finite gradient, got a norm of {float(norm)}")
    if largest is not None:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)


@contextmanager
def one_line_failures(step: int, plan: BatchPlan) -> Iterator[None]:
    """Running out of memory, and the end of another process, as one line.

    Args:
        step: Number of the step, from 1.
        plan: How the batch is split.

    Raises:
        BotvisionError: If either happens inside the block.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(step, plan, error) from error
    except RuntimeError as error:  # the CPU's allocator and gloo have no classes of their own
        if "can't allocate memory" in str(error):
            raise _out_of_memory(step, plan, error) from error
        if any(words in str(error) for words in _LOST):
            raise BotvisionError(
                f"step {step}: another process of the run ended; see what it says"
            ) from error
        raise


def _out_of_memory(step: int, plan: BatchPlan, error: Exception) -> BotvisionError:
    reason = " ".join(str(error).split()).partition(". ")[0]
    return BotvisionError(
        f"step {step}: out of memory with {plan.micro_batch_size} images at once ({reason}); lower "
        "training.micro_batch_size (--auto-batch finds the largest that fits; the batch stays the "
        "same) or model.image_size, or set training.gradient_checkpointing=true"
    )


def _diverged(step: int, what: str) -> BotvisionError:
    return BotvisionError(
        f"step {step}: {what}; the weights are those before this step; lower "
        "training.learning_rate or set training.clip_grad_norm"
    )
