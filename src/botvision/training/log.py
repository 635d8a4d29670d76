"""What a run reports: to its folder and trackers, and to the display that shows it."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from accelerate import Accelerator
from torch import nn

from botvision import __version__
from botvision.errors import BotvisionError
from botvision.files import write_json
from botvision.images.figures import save_figure
from botvision.tasks.task import ProgressCallback, Trainable
from botvision.training.curves import curves_figure
from botvision.training.run_folder import RunFolder, run_command
from botvision.training.settings import TrainingSettings
from botvision.training.speed import StepFigures
from botvision.weights.file import save_weights

_BATCH_IMAGES = 3  # training batches to draw
_INSTALLED_BY = {"tensorboard": "pip install botvision[track]", "wandb": "pip install wandb"}


def check_trackers(settings: TrainingSettings) -> None:
    """Check that the packages of the trackers are installed: Accelerate ignores missing ones.

    Raises:
        BotvisionError: If a package is missing; the message names the command that installs it.
    """
    for name in settings.trackers:
        if importlib.util.find_spec(name) is None:
            raise BotvisionError(
                f"training.trackers: {name} is not installed; {_INSTALLED_BY[name]}"
            )


class Display(Protocol):
    """What shows a run while it lasts."""

    def note(self, text: str) -> None:
        """Show a line, such as where the weights come from."""
        ...

    def step(self, figures: StepFigures) -> None:
        """Show a finished step."""
        ...

    def evaluating(self) -> AbstractContextManager[ProgressCallback]:
        """Show the progress of an evaluation inside the block."""
        ...

    def evaluated(self, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """Show the metrics of a finished evaluation."""
        ...


ShowRun = Callable[[int, int, tuple[str, ...]], AbstractContextManager[Display]]
"""Called with the number of steps done, their total and the names of the main metrics."""


class Silent:
    """A display that shows nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def step(self, figures: StepFigures) -> None:
        """Show nothing."""

    @contextmanager
    def evaluating(self) -> Iterator[ProgressCallback]:
        """Show nothing inside the block."""
        yield lambda _done, _total: None

    def evaluated(self, epoch: int, metrics: dict[str, Any], *, best: bool) -> None:
        """Show nothing."""


class Recorder:
    """Writes the log of a run; only the main process uses it.

    Args:
        task: Trainable in training.
        settings: Training settings of the recipe.
        folder: Run folder to write to.
        accelerator: Accelerator with the trackers.
    """

    def __init__(
        self,
        task: Trainable,
        settings: TrainingSettings,
        folder: RunFolder,
        accelerator: Accelerator,
    ) -> None:
        self._task = task
        self._settings = settings
        self._folder = folder
        self._accelerator = accelerator

    def begin(self) -> None:
        """Draw the training data."""
        self._task.draw_data(self._folder.path)

    def close(self) -> None:
        """Let the trackers write what they buffer."""
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def batch(self, step: int, batch: Any) -> None:
        """Draw a training batch, if it is one of the first."""
        if step < _BATCH_IMAGES:
            image = self._task.batch_image(batch)
            image.save(self._folder.path / f"train_batch{step}.jpg")

    def step(self, figures: StepFigures, *, last: bool) -> None:
        """Log a step, every ``log_every`` steps and at the end of the run."""
        if (figures.step - 1) % self._settings.log_every and not last:
            return
        self._folder.append(
            {
                "step": figures.step,
                "learning_rate": figures.learning_rate,
                "losses": figures.losses,
            }
        )
        values = {f"train/{name}": loss for name, loss in figures.losses.items()}
        values["train/learning_rate"] = figures.learning_rate
        values["speed/images_per_second"] = figures.images_per_second
        values["speed/waiting"] = figures.waiting
        self._accelerator.log(values, step=figures.step)

    def evaluation(
        self,
        metrics: dict[str, Any],
        model: nn.Module,
        step: int,
        epoch: int,
        *,
        best: bool,
    ) -> None:
        """Write the metrics, images and weights of an evaluation.

        Args:
            metrics: Metrics by name.
            model: The evaluated model.
            step: Number of steps done.
            epoch: Number of epochs begun.
            best: Whether the evaluation is the best so far.
        """
        folder = self._folder
        scalars = {name: metric for name, metric in metrics.items() if isinstance(metric, float)}
        folder.append({"step": step, "epoch": epoch, "metrics": scalars})
        folder.write_csv()
        self._accelerator.log({f"val/{name}": value for name, value in scalars.items()}, step=step)
        write_json(folder.path / "predictions.json", self._task.results())
        curves = curves_figure(folder.history(), self._task.headlines)
        save_figure(curves, folder.path / "results.png")
        self._task.draw_evaluation(folder.path, epoch, best=best)
        made_by = {"version": __version__, "step": step, "command": run_command()}
        description = self._task.description.model_copy(
            update={"metrics": metrics, "made_by": made_by}
        )
        save_weights(folder.last, model, description)
        if best:
            save_weights(folder.best, model, description)
