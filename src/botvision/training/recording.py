"""What a run leaves in its folder, and sends to trackers, as it goes on."""

import importlib.util
from typing import Any

from accelerate import Accelerator
from torch import nn

from botvision import __version__
from botvision.errors import BotvisionError
from botvision.files import write_json
from botvision.tasks.task import Trainable
from botvision.training.curves import draw_curves
from botvision.training.run_folder import RunFolder, run_command
from botvision.training.settings import TrainingSettings
from botvision.training.speed import StepFigures
from botvision.weights.file import save_weights

_BATCH_IMAGES = 3
_INSTALLED_BY = {"tensorboard": "pip install botvision[track]", "wandb": "pip install wandb"}


def check_trackers(settings: TrainingSettings) -> None:
    """See that the packages of the recipe's trackers are there; Accelerate would leave them out.

    Raises:
        BotvisionError: If one is missing; the message names the command that installs it.
    """
    for name in settings.trackers:
        if importlib.util.find_spec(name) is None:
            raise BotvisionError(
                f"training.trackers: {name} is not installed; {_INSTALLED_BY[name]}"
            )


class Recorder:
    """Writes a run's records; only the main process makes one.

    Args:
        task: What is trained.
        settings: The recipe's.
        folder: The run folder.
        accelerator: Holds the trackers.
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
        """Let the trackers write what they hold."""
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def batch(self, step: int, batch: Any) -> None:
        """Keep the first batches as the model sees them."""
        if step < _BATCH_IMAGES:
            image = self._task.batch_image(batch)
            image.save(self._folder.path / f"train_batch{step}.jpg")

    def step(self, figures: StepFigures, *, last: bool) -> None:
        """Log a step if its turn has come."""
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
        """Write an evaluation's metrics, images and weights."""
        folder = self._folder
        scalars = {name: metric for name, metric in metrics.items() if isinstance(metric, float)}
        folder.append({"step": step, "epoch": epoch, "metrics": scalars})
        folder.write_csv()
        self._accelerator.log({f"val/{name}": value for name, value in scalars.items()}, step=step)
        write_json(folder.path / "predictions.json", self._task.results())
        draw_curves(folder.history(), folder.path / "results.png", self._task.headlines)
        self._task.draw_evaluation(folder.path, epoch, best=best)
        made_by = {"version": __version__, "step": step, "command": run_command()}
        description = self._task.description.model_copy(
            update={"metrics": metrics, "made_by": made_by}
        )
        save_weights(folder.last, model, description)
        if best:
            save_weights(folder.best, model, description)
