"""The training loop: one process or many, resumable at any step, bit for bit on the CPU."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from botvision.datasets.loading import DataWorkerError, load_batches
from botvision.errors import BotvisionError, Interrupted
from botvision.processes import processes
from botvision.seeds import derived_seed
from botvision.tasks.task import Trainable
from botvision.training.display import Display, ShowRun
from botvision.training.failures import check_losses, clip_gradient, one_line_failures
from botvision.training.interruption import Request, interruptible
from botvision.training.optimization import learning_rate_at
from botvision.training.preparation import determinism, prepare
from botvision.training.profiling import profiling
from botvision.training.recording import Recorder, check_trackers
from botvision.training.resuming import check_same_recipe
from botvision.training.run_folder import RunFolder
from botvision.training.sampling import BatchPlan, StepBatches
from botvision.training.settings import TrainingSettings
from botvision.training.speed import StepFigures, Stopwatch, peak_memory
from botvision.training.state import Progressed, collect_state, read_state, restore, write_state


def train(
    task: Trainable,
    settings: TrainingSettings,
    folder: RunFolder,
    *,
    display: ShowRun,
    resume: bool = False,
    profile: bool = False,
) -> dict[str, Any]:
    """Train a task and keep the run in its folder.

    Writes metrics, curves, images, ``best.safetensors`` by the chosen metric,
    ``last.safetensors``, and the state to resume from every ``save_every`` steps.

    Args:
        task: What is trained and how it is evaluated.
        settings: The recipe's.
        folder: The run folder.
        display: Shows the run.
        resume: Go on from the state in the folder.
        profile: Write a trace of steps 4 to 6 to ``profile.json``.

    Returns:
        The metrics of the last evaluation.

    Raises:
        BotvisionError: If a loss stops being finite, memory or data fail, or there is nothing to
            resume from.
        Interrupted: If Ctrl-C or SIGTERM asked the run to stop; its state is saved.
    """
    check_trackers(settings)
    if settings.best_metric not in (None, *task.metric_names):
        raise BotvisionError(
            f"training.best_metric: expected one of {', '.join(task.metric_names)}, got "
            f"{settings.best_metric!r}"
        )
    metrics: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.enter_context(determinism(settings))
        run = _Run(task, settings, folder, resume=resume)
        progressed, total = run.progressed, run.batches.total_steps
        stack.callback(run.close)
        run.shown = stack.enter_context(display(progressed.step, total, task.headlines))
        run.request = stack.enter_context(interruptible())
        profiler = stack.enter_context(profiling(folder.path, wanted=profile and run.main))
        run.begin()
        if run.evaluation_is_due() and progressed.evaluated < progressed.step:
            metrics = run.evaluate()  # it was interrupted
        while progressed.step < total and not run.gave_up():
            run.watch.start()
            parts = [run.next_batch() for _ in range(run.plan.accumulation)]
            run.watch.got_data()
            stop = run.step(parts)
            profiler.step()
            if stop:
                run.stop()
            if progressed.step % settings.save_every == 0 or run.epoch_is_over():
                run.save()
            if run.evaluation_is_due():
                metrics = run.evaluate()
    run.accelerator.end_training()
    return metrics or folder.last_metrics()


class _Run:
    """What the steps of a run share; each method says what happens between two of them."""

    shown: Display
    request: Request

    def __init__(
        self, task: Trainable, settings: TrainingSettings, folder: RunFolder, *, resume: bool
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        state = read_state(folder.state) if resume else None
        torch.manual_seed(settings.seed)
        processes()  # before Accelerator, which would take several CPU processes for one
        self.accelerator = Accelerator(
            mixed_precision="no",  # the task knows what runs under autocast
            log_with=list(settings.trackers) or None,
            project_dir=folder.path,
        )
        self.main = self.accelerator.is_main_process
        self.plan = BatchPlan.of(settings, self.accelerator.num_processes)
        if state is not None:
            check_same_recipe(state, task.description.recipe, self.plan, folder.path)
        self.prepared = prepare(task, settings, self.accelerator)
        self.progressed = Progressed()
        if state is not None:
            self.progressed = restore(state, self.prepared, folder.state)
            if self.main:
                folder.rewind(self.progressed.step, self.progressed.evaluated)
        data = task.train_data()
        self.batches = StepBatches(
            len(data),  # type: ignore[arg-type]
            self.plan,
            settings.epochs,
            seed=settings.seed,
            max_steps=settings.max_steps,
            first_step=self.progressed.step,
            process=self.accelerator.process_index,
            shard_lengths=getattr(data, "shard_lengths", ()),
        )
        self._data = load_batches(
            data,
            self.batches,
            collate=task.collate,
            num_workers=settings.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        self.recorder = Recorder(task, settings, folder, self.accelerator)
        self.watch = Stopwatch()

    def begin(self) -> None:
        """Say what is going to happen, and draw the data."""
        for note in (self.plan.describe(self.settings), *self.task.notes):
            self.shown.note(note)
        if self.settings.trackers:
            self.accelerator.init_trackers(self.folder.path.name)
        if self.main:
            self.recorder.begin()

    def next_batch(self) -> Any:
        """The next part of a step."""
        with self._saved_if_workers_die():
            return next(self._data)

    @contextmanager
    def _saved_if_workers_die(self) -> Iterator[None]:
        try:
            yield
        except DataWorkerError as error:
            if self.main and not self.settings.sharded:  # this process can save alone
                self.save()
            raise BotvisionError(f"{error}; {self._how_to_go_on()}") from error

    def step(self, parts: list[Any]) -> bool:
        """One step of the optimizer; whether any process was asked to stop."""
        accelerator, settings, number = self.accelerator, self.settings, self.progressed.step + 1
        model, optimizer = self.prepared.model, self.prepared.optimizer
        rate = self.plan.rate_factor * learning_rate_at(
            self.progressed.step, self.batches.total_steps, settings
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        if self.main:
            self.recorder.batch(number - 1, parts[0])
        sums: dict[str, Tensor] = {}
        with one_line_failures(number, self.plan):
            for part, batch in enumerate(parts):
                # Every draw follows from the seed, the step and the part's number over all
                # processes: there is nothing to save, and one process draws what two would.
                place = part * accelerator.num_processes + accelerator.process_index
                torch.manual_seed(derived_seed(settings.seed, number - 1, place))
                last = part == len(parts) - 1
                with nullcontext() if last else accelerator.no_sync(model):
                    losses = self.task.losses(model, batch, accelerator.device)
                    (torch.stack(list(losses.values())).sum() / len(parts)).backward()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0) + loss.detach() / len(parts)
            asked = torch.tensor(float(bool(self.request)), device=accelerator.device)
            mean = accelerator.reduce(torch.stack([*sums.values(), asked]), "mean").tolist()
            means = dict(zip(sums, mean, strict=False))
            # All processes know the same, and agree on whether to go on.
            check_losses(means, number)
            clip_gradient(self.prepared.plain, settings.clip_grad_norm, number)
            optimizer.step()
            optimizer.zero_grad()
        if self.prepared.average is not None:
            self.prepared.average.update(self.prepared.plain, step=number - 1)
        self.progressed.step = number
        self.watch.stepped(self.plan.batch_size)
        figures = StepFigures(
            step=number,
            losses=means,
            learning_rate=rate,
            images_per_second=self.watch.images_per_second,
            waiting=self.watch.waiting,
            memory=peak_memory(accelerator.device),
        )
        self.shown.step(figures)
        if self.main:
            self.recorder.step(figures, last=number == self.batches.total_steps)
        return mean[-1] > 0

    def epoch_is_over(self) -> bool:
        """Whether the step done ends an epoch or the run."""
        step = self.progressed.step
        return step % self.batches.steps_per_epoch == 0 or step == self.batches.total_steps

    def evaluation_is_due(self) -> bool:
        """Whether an evaluation follows the step done."""
        step = self.progressed.step
        epochs, within = divmod(step, self.batches.steps_per_epoch)
        due = step > 0 and within == 0 and epochs % self.settings.evaluate_every == 0
        return due or step == self.batches.total_steps

    def evaluate(self) -> dict[str, Any]:
        """Evaluate, keep what came of it and save that it is done."""
        task, progressed = self.task, self.progressed
        with ExitStack() as stack:
            progress = stack.enter_context(self.shown.evaluating())
            stack.enter_context(self._saved_if_workers_die())
            stack.enter_context(one_line_failures(progressed.step, self.plan))
            if self.settings.compile:  # images come in many sizes here
                stack.enter_context(torch.compiler.set_stance("force_eager"))

            def report(done: int, total: int) -> None:
                # Several processes have to end it together.
                if self.request and self.accelerator.num_processes == 1:
                    self.stop()
                progress(done, total)

            evaluated = self.prepared.evaluated()
            metrics = task.evaluate(evaluated, report)
            task.set_training_mode(self.prepared.plain)
        value = metrics[self.settings.best_metric or task.primary_metric]
        best = progressed.best is None or value > progressed.best
        progressed.since_best = 0 if best else progressed.since_best + 1
        progressed.best = value if best else progressed.best
        progressed.evaluated = progressed.step
        epoch = -(-progressed.step // self.batches.steps_per_epoch)
        if self.main:
            self.recorder.evaluation(metrics, evaluated, progressed.step, epoch, best=best)
        self.save()
        self.shown.evaluated(epoch, metrics, best=best)
        if self.gave_up():
            self.shown.note(
                f"no better evaluation in {progressed.since_best}: stopped after step "
                f"{progressed.step} of {self.batches.total_steps}"
            )
        return metrics

    def gave_up(self) -> bool:
        """Whether the recipe's patience is at its end."""
        patience = self.settings.patience
        return patience is not None and self.progressed.since_best >= patience

    def save(self) -> None:
        """Write the state to resume from."""
        recipe = self.task.description.recipe
        state = collect_state(self.prepared, self.progressed, self.plan.batch_size, recipe)
        if self.main:
            write_state(self.folder.state, state)

    def close(self) -> None:
        """End the processes that read data, and let the trackers write what they hold."""
        self._data.close()
        self.recorder.close()

    def stop(self) -> None:
        """Save and end the run, as asked."""
        self.save()
        raise Interrupted(
            f"stopped after step {self.progressed.step} of {self.batches.total_steps}, saved; "
            f"{self._how_to_go_on()}",
            self.request.signal or signal.SIGTERM,  # another process was asked
        )

    def _how_to_go_on(self) -> str:
        return f"go on with: botvision train --resume {self.folder.path}"
