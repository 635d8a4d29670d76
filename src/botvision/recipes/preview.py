"""Preview of the training data: the first images of an epoch, as a recipe augments them."""

from pathlib import Path
from typing import Any

from PIL import Image

from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.recipes.running import build_task
from botvision.recipes.schema import Recipe
from botvision.training.sampling import BatchPlan, StepBatches

MOST_IMAGES = 16  # that tasks draw of a batch
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def draw_preview(recipe: Recipe, path: Path, *, count: int, epoch: int) -> int:
    """Draw a mosaic of the images that an epoch begins with, exactly as the training gets them.

    Of images that are mixed within a batch (mixup), the batch is that of the mosaic, and their
    number is even.

    Args:
        recipe: The recipe; its ``data.folder`` must be set.
        path: Image to write.
        count: Number of images, at most ``MOST_IMAGES`` and as many as there are.
        epoch: Index of the epoch, from 0.

    Returns:
        The number of images drawn.

    Raises:
        BotvisionError: If the recipe, the data or the path cannot be used.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise BotvisionError(f"{path}: expected a file name in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise BotvisionError(f"{path}: no such folder")
    task = build_task(recipe)
    data: Any = task.train_data()
    count = min(count, MOST_IMAGES, len(data))
    if task.mixes_pairs:
        count = max(2, count - count % 2)
    plan = BatchPlan(micro_batch_size=count, processes=1, accumulation=1, lr_factor=1)
    steps = -(-len(data) // count)
    batches = StepBatches(
        len(data),
        plan,
        epoch + 1,
        seed=recipe.training.seed,
        first_step=epoch * steps,
        shard_lengths=data.shard_lengths,
    )
    keys = next(iter(batches))
    image: Image.Image = task.batch_image(task.collate([data[key] for key in keys]))
    with replacing(path) as temporary:
        image.save(temporary)
    return count
