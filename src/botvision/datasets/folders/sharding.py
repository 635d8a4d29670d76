"""Writing class folders as shards."""

from collections.abc import Callable, Sequence
from pathlib import Path

from botvision.datasets.folders.dataset import open_split
from botvision.datasets.folders.hub import HUB_PREFIX
from botvision.datasets.folders.splits import LabeledImages
from botvision.errors import BotvisionError
from botvision.files import new_folder
from botvision.shards.write import Sample, stored_order, write_manifest, write_shards

Progress = Callable[[str, int, int], None]

_SPLITS = ("train", "val")


def shard_classes(
    folder: str,
    out: Path,
    *,
    shard_size: int,
    progress: Progress | None = None,
) -> dict[str, tuple[int, int]]:
    """Write the training and the validation split of class folders as shards.

    They are ``<split>/00000.tar`` and so on. The class of an image is the number in the ``.cls``
    file beside it; ``classes.txt`` names the classes. Training images are shuffled, because the
    images of a shard are trained on together. Images are not decoded.

    Args:
        folder: Data set, see ``find_split``; one of the Hub is refused.
        out: Folder to make; must not exist.
        shard_size: Size in bytes at which a shard ends.
        progress: Called with the name of the step, the number of images done and the total.

    Returns:
        The numbers of images and of shards of each split.

    Raises:
        BotvisionError: If a split is missing or damaged, or validation has a class that training
            lacks.
    """
    if folder.startswith(HUB_PREFIX):
        raise BotvisionError(
            f"{folder}: expected class folders; data sets of the Hub are streamed by its library"
        )
    splits = {name: open_split(folder, name) for name in _SPLITS}
    classes = splits["train"].classes
    for name in splits["val"].classes:
        if name not in classes:
            raise BotvisionError(
                f"{splits['val'].source}: class {name!r}: expected the {len(classes)} classes of "
                f"{splits['train'].source}; remove it, or train with it"
            )
    with new_folder(out) as written:
        (written / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        counts = {
            name: _write(found, classes, written / name, shard_size, progress)
            for name, found in splits.items()
        }
        write_manifest(written)
    return counts


def _write(
    found: LabeledImages,
    classes: Sequence[str],
    folder: Path,
    shard_size: int,
    progress: Progress | None,
) -> tuple[int, int]:
    folder.mkdir()
    order = stored_order(folder.name, len(found.names))
    numbers = [str(classes.index(each)).encode() for each in found.classes]
    samples = (
        Sample(
            found.names[index],
            found.images.content(found.names[index]),
            (".cls", numbers[found.labels[index]]),
        )
        for index in order
    )
    shards = write_shards(
        folder,
        samples,
        shard_size=shard_size,
        progress=lambda done: (
            progress(f"write {folder.name}", done, len(order)) if progress else None
        ),
    )
    return len(order), shards
