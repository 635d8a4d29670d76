"""What a model will see: the first pictures of an epoch, as a recipe augments them."""

from pathlib import Path
from typing import Any

from PIL import Image

from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.recipes.running import build_task
from botvision.recipes.schema import ClassificationRecipe, Recipe
from botvision.training.sampling import BatchPlan, StepBatches

MOST_PICTURES = 16  # that tasks draw of a batch
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def draw_preview(recipe: Recipe, path: Path, *, count: int, epoch: int) -> int:
    """Draw a mosaic of the pictures that an epoch begins with, exactly as the training gets them.

    Of pictures that are mixed within a batch (mixup), the batch is that of the mosaic, and their
    number is even.

    Args:
        recipe: The recipe; its ``data.folder`` must be set.
        path: Picture to write.
        count: Pictures, at most ``MOST_PICTURES`` and as many as there are.
        epoch: From 0.

    Returns:
        The number of pictures drawn.

    Raises:
        BotvisionError: If the recipe, the data or the path cannot be used.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise BotvisionError(f"{path}: expected a file name in {', '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise BotvisionError(f"{path}: no such folder")
    task = build_task(recipe)
    data: Any = task.train_data()
    count = min(count, MOST_PICTURES, len(data))
    if isinstance(recipe, ClassificationRecipe) and (recipe.data.mixup or recipe.data.cutmix):
        count = max(2, count - count % 2)  # pictures are mixed in pairs
    plan = BatchPlan(images_at_once=count, processes=1, accumulation=1, rate_factor=1)
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
    picture: Image.Image = task.batch_picture(task.collate([data[key] for key in keys]))
    with replacing(path) as temporary:
        picture.save(temporary)
    return count
