"""The training loop: one process or many, resumable at any step, bit for bit on the CPU."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader

from botvision.data.seeds import derived_seed
from botvision.errors import BotvisionError
from botvision.files import write_json
from botvision.models.weights import save_weights
from botvision.processes import processes
from botvision.training.curves import draw_curves
from botvision.training.optimisation import build_optimiser, learning_rate_at
from botvision.training.run_folder import RunFolder
from botvision.training.sampling import StepBatches
from botvision.training.settings import TrainingSettings
from botvision.training.state import Progressed, load_state, save_state
from botvision.training.task import Progress, Task

_BATCH_PICTURES = 2


class Display(Protocol):
    """Shows a run while it goes on."""

    def step(self, done: int, losses: dict[str, float], images_per_second: float) -> None:
        """A step is done."""
        ...

    def evaluating(self) -> AbstractContextManager[Progress]:
        """An evaluation goes on inside the block."""
        ...

    def evaluated(self, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """An evaluation is done."""
        ...


def train(
    task: Task,
    settings: TrainingSettings,
    folder: RunFolder,
    *,
    display: Callable[[int, int], AbstractContextManager[Display]],
    resume: bool = False,
) -> dict[str, Any]:
    """Train a task and keep the run in its folder.

    Writes metrics, curves, pictures, ``best.safetensors`` by the task's primary metric,
    ``last.safetensors``, and the state to resume from every ``save_every`` steps.

    Args:
        task: What is trained and how it is evaluated.
        settings: The recipe's.
        folder: The run folder.
        display: Called with the steps done and their total; shows the run.
        resume: Go on from the state in the folder.

    Returns:
        The metrics of the last evaluation.

    Raises:
        BotvisionError: If a loss stops being finite, or there is nothing to resume from.
    """
    torch.manual_seed(settings.seed)
    processes()  # before Accelerator, which would take several CPU processes for one
    accelerator = Accelerator(mixed_precision="no")  # the task knows what runs under autocast
    model, average, optimiser = _prepare(task, settings, accelerator)
    plain = accelerator.unwrap_model(model)
    progressed = Progressed()
    if resume:
        progressed = load_state(folder.state, plain, average, optimiser)
        folder.rewind(progressed.step)
    batches, loader = _loader(task, settings, accelerator, progressed.step)
    global_batch = settings.batch_size * accelerator.num_processes
    evaluated_model = plain if average is None else average.module
    metrics: dict[str, Any] = {}
    started, first_step = time.perf_counter(), progressed.step

    with display(progressed.step, batches.total_steps) as shown:
        for step, batch in enumerate(_unwrapped(loader), start=first_step):
            if step < _BATCH_PICTURES and accelerator.is_main_process:
                task.batch_picture(batch).save(folder.path / f"train_batch{step}.jpg")
            # Every draw of a step follows from the seed and the step: nothing to save or restore.
            torch.manual_seed(derived_seed(settings.seed, step, accelerator.process_index))
            rate = learning_rate_at(step, batches.total_steps, settings)
            for group in optimiser.param_groups:
                # A state saved by an earlier version names no shares.
                group["lr"] = rate * group.get("rate_share", 1.0)
            losses = _step(task, model, batch, optimiser, settings, accelerator, step)
            if average is not None:
                average.update(plain, step=step)
            progressed.step = step + 1

            speed = (progressed.step - first_step) * global_batch / (time.perf_counter() - started)
            shown.step(progressed.step, losses, speed)
            epoch, within = divmod(progressed.step, batches.steps_per_epoch)
            finished = progressed.step == batches.total_steps
            if accelerator.is_main_process and (step % settings.log_every == 0 or finished):
                folder.append({"step": progressed.step, "learning_rate": rate, "losses": losses})
            if finished or (within == 0 and epoch % settings.evaluate_every == 0):
                with shown.evaluating() as progress:
                    metrics = task.evaluate(evaluated_model, progress)
                best = _keep(task, metrics, folder, evaluated_model, progressed, epoch, accelerator)
                shown.evaluated(epoch, metrics, best=best)
            if accelerator.is_main_process and (
                finished or progressed.step % settings.save_every == 0 or within == 0
            ):
                save_state(folder.state, plain, average, optimiser, progressed)
    accelerator.end_training()
    return metrics or _last_metrics(folder)


def _prepare(
    task: Task, settings: TrainingSettings, accelerator: Accelerator
) -> tuple[nn.Module, ModelEmaV3 | None, torch.optim.Optimizer]:
    model = task.model.to(accelerator.device)
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    average = None
    if settings.ema_decay is not None:
        average = ModelEmaV3(model, decay=settings.ema_decay, use_warmup=True, warmup_power=0.75)
    model, optimiser = accelerator.prepare(model, build_optimiser(model, settings))
    return model.train(), average, optimiser


def _loader(
    task: Task, settings: TrainingSettings, accelerator: Accelerator, first_step: int
) -> tuple[StepBatches, DataLoader[Any]]:
    data = task.train_data()
    batches = StepBatches(
        len(data),  # type: ignore[arg-type]
        settings.batch_size,
        settings.epochs,
        seed=settings.seed,
        first_step=first_step,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_sampler=batches,
        collate_fn=task.collate,
        num_workers=settings.workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    return batches, loader


def _unwrapped(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches; an error in a worker without the traceback that torch puts into its message."""
    try:
        yield from loader
    except BotvisionError as error:
        raise BotvisionError(
            str(error).strip().splitlines()[-1].removeprefix("botvision.errors.BotvisionError: ")
        ) from error


def _step(
    task: Task,
    model: nn.Module,
    batch: Any,
    optimiser: torch.optim.Optimizer,
    settings: TrainingSettings,
    accelerator: Accelerator,
    step: int,
) -> dict[str, float]:
    losses = task.losses(model, batch, accelerator.device)
    total = torch.stack(list(losses.values())).sum()
    mean: dict[str, Tensor] = accelerator.reduce(
        {name: loss.detach() for name, loss in losses.items()}, reduction="mean"
    )
    values = {name: float(loss) for name, loss in mean.items()}
    if not all(math.isfinite(value) for value in values.values()):
        shown = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        raise _diverged(step, f"expected finite losses, got {shown}")
    accelerator.backward(total)
    if settings.gradient_clip is not None:
        norm = accelerator.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        if not torch.isfinite(norm):
            raise _diverged(step, f"expected a finite gradient, got a norm of {float(norm)}")
    optimiser.step()
    optimiser.zero_grad()
    return values


def _diverged(step: int, what: str) -> BotvisionError:
    return BotvisionError(
        f"step {step + 1}: {what}; the weights are those before this step; lower "
        "training.learning_rate or set training.gradient_clip"
    )


def _keep(
    task: Task,
    metrics: dict[str, Any],
    folder: RunFolder,
    model: nn.Module,
    progressed: Progressed,
    epoch: int,
    accelerator: Accelerator,
) -> bool:
    """Write an evaluation's metrics, pictures and weights; whether it is the best so far."""
    value = metrics[task.primary_metric]
    best = progressed.best is None or value > progressed.best
    if best:
        progressed.best = value
    if not accelerator.is_main_process:
        return best
    scalars = {name: metric for name, metric in metrics.items() if isinstance(metric, float)}
    folder.append({"step": progressed.step, "epoch": epoch, "metrics": scalars})
    folder.write_csv()
    write_json(folder.path / "predictions.json", task.results())
    draw_curves(folder.history(), folder.path / "results.png")
    task.validation_picture().save(folder.path / "val_predictions.jpg")
    description = {**task.description, "metrics": metrics, "step": progressed.step}
    save_weights(folder.last, model, description)
    if best:
        save_weights(folder.best, model, description)
    return best


def _last_metrics(folder: RunFolder) -> dict[str, Any]:
    """Metrics of a run that was already complete when it was resumed."""
    evaluations = [record["metrics"] for record in folder.history() if "metrics" in record]
    if not evaluations:
        raise BotvisionError(f"{folder.path}: the run is complete but was never evaluated")
    last: dict[str, Any] = evaluations[-1]
    return last
