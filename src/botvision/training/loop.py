"""The training loop: one process or many, resumable at any step, bit for bit on the CPU."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from botvision import __version__
from botvision.attention.health import LayerHealth, recording_health
from botvision.datasets.loading import DataWorkerError, load_batches
from botvision.errors import BotvisionError, Interrupted
from botvision.files import write_json
from botvision.images.figures import save_figure
from botvision.inspection.attention_health import (
    HEALTH_IMAGES,
    collapse_note,
    draw_attention_health,
    health_record,
    tracked_values,
)
from botvision.processes import processes
from botvision.seeds import derived_seed
from botvision.tasks.task import Trainable
from botvision.training.curves import curves_figure
from botvision.training.failures import (
    Request,
    check_losses,
    clip_gradient,
    interruptible,
    one_line_failures,
)
from botvision.training.log import Display, ShowRun, Silent, check_trackers
from botvision.training.optimizer import learning_rate_at
from botvision.training.preparation import determinism, prepare
from botvision.training.run_folder import RunFolder, run_command
from botvision.training.sampling import BatchPlan, StepBatches
from botvision.training.selection import after_evaluation, defined, gave_up, short_run_note
from botvision.training.settings import TrainingSettings
from botvision.training.speed import StepFigures, Stopwatch, profiling
from botvision.training.state import (
    Progress,
    check_same_recipe,
    collect_state,
    read_state,
    restore,
    write_state,
)
from botvision.weights.file import save_weights

_DRAWN_BATCHES = 3  # of training


def train(
    task: Trainable,
    settings: TrainingSettings,
    folder: RunFolder,
    *,
    display: ShowRun | None = None,
    resume: bool = False,
    profile: bool = False,
) -> dict[str, Any]:
    """Train a task and log the run to its folder.

    Writes metrics, curves, images, ``best.safetensors`` by the chosen metric,
    ``last.safetensors``, and the state to resume from every ``save_every`` steps.

    Args:
        task: Model, losses, data and evaluation.
        settings: Training settings of the recipe.
        folder: Run folder to write to.
        display: Display of the run, opened with the number of steps done, their total and the
            names of the main metrics; None: silent.
        resume: Whether to continue from the state in the folder.
        profile: Whether to write a trace of steps 4 to 6 to ``profile.json``.

    Returns:
        The metrics of the last evaluation.

    Raises:
        BotvisionError: If a loss is NaN or infinite, memory or data fail, there is nothing to
            resume from, or another process is training the run.
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
        if processes().is_main_process:
            stack.enter_context(folder.held())
        run = _Run(task, settings, folder, resume=resume)
        total = run.batches.total_steps
        stack.callback(run.close)
        if display is not None:
            run.display = stack.enter_context(display(run.progress.step, total, task.headlines))
        run.request = stack.enter_context(interruptible())
        traced = stack.enter_context(profiling(folder.path, wanted=profile and run.main))
        for note in run.notes():
            run.display.note(note)
        if settings.trackers:
            run.accelerator.init_trackers(folder.path.name)
        if run.main:
            task.draw_data(folder.path)
        if run.evaluation_is_due() and run.progress.evaluated < run.progress.step:
            metrics = run.evaluate()  # the run was interrupted in it
        while run.progress.step < total and not gave_up(run.progress, settings):
            run.watch.start()
            parts = [run.next_batch() for _ in range(run.plan.accumulation)]
            run.watch.got_data()
            stop = run.step(parts)
            traced()
            if stop:
                run.stop()
            done = run.progress.step
            epoch_is_over = done % run.batches.steps_per_epoch == 0
            if done % settings.save_every == 0 or epoch_is_over or done == total:
                run.save()
            if run.evaluation_is_due():
                metrics = run.evaluate()
    run.accelerator.end_training()
    return metrics or folder.last_metrics()


class _Run:
    """The state that the steps of a run share."""

    request: Request

    def __init__(
        self, task: Trainable, settings: TrainingSettings, folder: RunFolder, *, resume: bool
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self.display: Display = Silent()
        self.undefined = False  # whether it was said that the metric is
        self.collapsed = False  # whether it was said that attention has
        self.restarted = resume and folder.nothing_saved()
        saved = read_state(folder.state) if resume and not self.restarted else None
        torch.manual_seed(settings.seed)
        processes()  # before Accelerator, which would see one CPU process instead of several
        self.accelerator = Accelerator(
            mixed_precision="no",  # the task decides what runs under autocast
            log_with=list(settings.trackers) or None,
            project_dir=folder.path,
        )
        self.main = self.accelerator.is_main_process
        self.plan = BatchPlan.of(settings, self.accelerator.num_processes)
        if saved is not None:
            check_same_recipe(saved, task.description.recipe, self.plan, folder.path)
        self.state = prepare(task, settings, self.accelerator)
        self.progress = Progress()
        if saved is not None:
            self.progress = restore(saved, self.state, folder.state)
        if resume and self.main:
            folder.rewind(self.progress.step, self.progress.evaluated)
        data = task.train_data()
        self.batches = StepBatches(
            len(data),  # type: ignore[arg-type]
            self.plan,
            settings.epochs,
            seed=settings.seed,
            max_steps=settings.max_steps,
            first_step=self.progress.step,
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
        self.watch = Stopwatch()

    def notes(self) -> Iterator[str]:
        """Yield the lines that are shown when the run begins."""
        yield self.plan.describe(self.settings)
        yield from self.task.notes
        if self.restarted:
            yield "the run was interrupted before anything was saved: it begins again"
        batches = self.batches
        if note := short_run_note(self.settings, batches.total_steps, batches.steps_per_epoch):
            yield note

    def next_batch(self) -> Any:
        with self._saving_if_workers_die():
            return next(self._data)

    @contextmanager
    def _saving_if_workers_die(self) -> Iterator[None]:
        try:
            yield
        except DataWorkerError as error:
            if self.main and not self.settings.sharded:  # this process can save alone
                self.save()
            raise BotvisionError(f"{error}; resume the run in {self.folder.path}") from error

    def step(self, parts: list[Any]) -> bool:
        """Take an optimizer step; return whether any process was asked to stop."""
        accelerator, settings, number = self.accelerator, self.settings, self.progress.step + 1
        model, optimizer = self.state.model, self.state.optimizer
        learning_rate = self.plan.lr_factor * learning_rate_at(
            self.progress.step, self.batches.total_steps, settings
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]
        if self.main and number <= _DRAWN_BATCHES:
            image = self.task.batch_image(parts[0])
            image.save(self.folder.path / f"train_batch{number - 1}.jpg")
        sums: dict[str, Tensor] = {}
        with one_line_failures(number, self.plan):
            for part, batch in enumerate(parts):
                # Random numbers depend on the seed, the step and the index of the part over all
                # processes: there is no state to save, and one process draws what two would.
                index = part * accelerator.num_processes + accelerator.process_index
                torch.manual_seed(derived_seed(settings.seed, number - 1, index))
                last = part == len(parts) - 1
                with nullcontext() if last else accelerator.no_sync(model):
                    losses = self.task.losses(model, batch, accelerator.device)
                    (torch.stack(list(losses.values())).sum() / len(parts)).backward()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0) + loss.detach() / len(parts)
            asked = torch.tensor(float(bool(self.request)), device=accelerator.device)
            mean = accelerator.reduce(torch.stack([*sums.values(), asked]), "mean").tolist()
            means = dict(zip(sums, mean, strict=False))
            # All processes have the same means, and agree on whether to continue.
            check_losses(means, number)
            clip_gradient(self.state.plain, settings.clip_grad_norm, number)
            optimizer.step()
            optimizer.zero_grad()
        if self.state.average is not None:
            self.state.average.update(self.state.plain, step=number - 1)
        self.progress.step = number
        speed, waiting = self.watch.stepped(self.plan.batch_size)
        memory = None
        if accelerator.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(accelerator.device) / 2**30
        figures = StepFigures(number, means, learning_rate, speed, waiting, memory)
        self.display.step(figures)
        logged = (number - 1) % settings.log_every == 0 or number == self.batches.total_steps
        if self.main and logged:
            self.log_step(figures)
        return mean[-1] > 0

    def log_step(self, figures: StepFigures) -> None:
        step = {"step": figures.step, "learning_rate": figures.learning_rate}
        self.folder.append({**step, "losses": figures.losses})
        values = {f"train/{name}": loss for name, loss in figures.losses.items()}
        values["train/learning_rate"] = figures.learning_rate
        values["speed/images_per_second"] = figures.images_per_second
        values["speed/waiting"] = figures.waiting
        self.accelerator.log(values, step=figures.step)

    def evaluation_is_due(self) -> bool:
        step = self.progress.step
        epochs, within = divmod(step, self.batches.steps_per_epoch)
        due = step > 0 and within == 0 and epochs % self.settings.evaluate_every == 0
        return due or step == self.batches.total_steps

    def evaluate(self) -> dict[str, Any]:
        """Evaluate, log the results and save the state."""
        task, progress = self.task, self.progress
        with ExitStack() as stack:
            show_progress = stack.enter_context(self.display.evaluating())
            stack.enter_context(self._saving_if_workers_die())
            stack.enter_context(one_line_failures(progress.step, self.plan))
            if self.settings.compile:  # images have many sizes here
                stack.enter_context(torch.compiler.set_stance("force_eager"))

            def report(done: int, total: int) -> None:
                # Several processes must finish the evaluation together.
                if self.request and self.accelerator.num_processes == 1:
                    self.stop()
                show_progress(done, total)

            evaluated = self.state.evaluated()
            images = HEALTH_IMAGES if self.main else 0
            health = stack.enter_context(recording_health(evaluated, images))
            metrics = task.evaluate(evaluated, report)
        name = self.settings.best_metric or task.primary_metric
        self.progress, best = after_evaluation(progress, metrics[name], self.settings)
        epoch = -(-progress.step // self.batches.steps_per_epoch)
        layers = health.layers()
        if self.main:
            self.log_evaluation(metrics, evaluated, epoch, layers, best=best)
        task.set_training_mode(self.state.plain)
        self.save()
        self.display.evaluated(epoch, metrics, best=best)
        if defined(metrics[name]) is None and not self.undefined:
            self.undefined = True
            self.display.note(
                f"{name} is undefined, as the validation data has nothing to measure it on: "
                "best.safetensors is the latest, and no evaluation ends the run early"
            )
        if (collapsed := collapse_note(layers)) and not self.collapsed:
            self.collapsed = True
            self.display.note(collapsed)
        if gave_up(self.progress, self.settings):
            self.display.note(
                f"no better evaluation in {self.progress.since_best}: stopped after step "
                f"{progress.step} of {self.batches.total_steps}"
            )
        return metrics

    def log_evaluation(
        self,
        metrics: dict[str, Any],
        model: nn.Module,
        epoch: int,
        layers: Sequence[LayerHealth],
        *,
        best: bool,
    ) -> None:
        task, folder, step = self.task, self.folder, self.progress.step
        scalars = {name: metric for name, metric in metrics.items() if isinstance(metric, float)}
        record = {"step": step, "epoch": epoch, "metrics": scalars}
        if layers:
            record["attention"] = health_record(layers)
        folder.append(record)
        folder.write_csv()
        tracked = {f"val/{name}": value for name, value in scalars.items()}
        self.accelerator.log({**tracked, **tracked_values(layers)}, step=step)
        write_json(folder.path / "predictions.json", task.results())
        history = folder.history()
        save_figure(curves_figure(history, task.headlines), folder.path / "results.png")
        task.draw_evaluation(folder.path, epoch, best=best)
        if layers:
            # A sharded model runs on all processes or not at all.
            example = None if self.settings.sharded else task.example(model)
            draw_attention_health(folder.path / "attention.png", history, example)
        made_by = {"version": __version__, "step": step, "command": run_command()}
        description = task.description.model_copy(update={"metrics": metrics, "made_by": made_by})
        save_weights(folder.last, model, description)
        if best:
            save_weights(folder.best, model, description)

    def save(self) -> None:
        recipe = self.task.description.recipe
        state = collect_state(self.state, self.progress, self.plan.batch_size, recipe)
        if self.main:
            write_state(self.folder.state, state)

    def close(self) -> None:
        """Stop the data loading workers, and let the trackers write what they buffer."""
        self._data.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def stop(self) -> None:
        """Save the state and end the run."""
        self.save()
        raise Interrupted(
            f"stopped after step {self.progress.step} of {self.batches.total_steps}, saved; "
            f"resume the run in {self.folder.path}",
            self.request.signal or signal.SIGTERM,  # another process was asked
        )
