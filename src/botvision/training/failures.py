"""Early ends of a run: failures as one line that says what to do, and requests to stop."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from torch import nn
from torch.distributed.tensor import DTensor

from botvision.errors import BotvisionError
from botvision.processes import out_of_memory
from botvision.training.sampling import BatchPlan

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_VALUE = "Expected more than 1 value per channel"
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")


def check_losses(losses: dict[str, float], step: int) -> None:
    """Check that the losses of a step are finite.

    Args:
        losses: Losses by name, averaged over all processes.
        step: Number of the step, from 1.

    Raises:
        BotvisionError: If a loss is NaN or infinite.
    """
    if not all(math.isfinite(value) for value in losses.values()):
        shown = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
        raise _diverged(step, f"expected finite losses, got {shown}")


def clip_gradient(model: nn.Module, largest: float | None, step: int) -> None:
    """Clip the norm of the gradient, and check that it is finite before it reaches the weights.

    Args:
        model: Model whose parameters hold the gradient.
        largest: Largest norm; None leaves the gradient as it is.
        step: Number of the step, from 1.

    Raises:
        BotvisionError: If the gradient is NaN or infinite.
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
    """Turn lack of memory, the loss of another process and a tiny batch into one line.

    Args:
        step: Number of the step, from 1.
        plan: How the batch is split.

    Raises:
        BotvisionError: If one of them happens inside the block.
    """
    try:
        yield
    except ValueError as error:
        if _ONE_VALUE not in str(error):
            raise
        raise BotvisionError(
            f"step {step}: BatchNorm needs more than one value per channel, and a batch of "
            f"{plan.micro_batch_size} at this image size has one; raise "
            "training.micro_batch_size, training.batch_size or the image size"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            reason = " ".join(str(error).split()).partition(". ")[0]
            raise BotvisionError(
                f"step {step}: out of memory with {plan.micro_batch_size} images at once "
                f"({reason}); lower training.micro_batch_size (the batch stays the same) or "
                "model.image_size, or set training.gradient_checkpointing=true"
            ) from error
        if any(words in str(error) for words in _LOST):
            raise BotvisionError(
                f"step {step}: another process of the run ended; see what it says"
            ) from error
        raise


def _diverged(step: int, what: str) -> BotvisionError:
    return BotvisionError(
        f"step {step}: {what}; the weights are those before this step; lower "
        "training.learning_rate or set training.clip_grad_norm"
    )


@dataclass
class Request:
    """A request to stop the run; false until there is one.

    Attributes:
        signal: Number of the signal that asked, or None.
    """

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def interruptible() -> Iterator[Request]:
    """Turn Ctrl-C or SIGTERM inside the block into a request, to be answered between two steps.

    A second signal stops at once. Outside the main thread signals cannot be handled, and this has
    no effect.
    """
    request = Request()
    before: dict[int, object] = {}

    def ask(number: int, _frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.signal = number

    with suppress(ValueError):  # not the main thread
        for each in _SIGNALS:
            before[each] = signal.signal(each, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
