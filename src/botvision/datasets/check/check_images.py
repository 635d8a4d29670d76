"""Images of what the data check found: what the annotations hold, and samples of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from botvision.datasets.check.report import DataReport, SplitReport
from botvision.datasets.check.statistics import draw_statistics
from botvision.datasets.coco.annotations import instance_mask
from botvision.errors import BotvisionError
from botvision.files import replacing
from botvision.images.draw import draw_instances, mosaic

_SAMPLES = 16
_LONGEST_SIDE = 640


def save_images(report: DataReport, folder: Path) -> list[Path]:
    """Write ``<split>_statistics.png`` and ``<split>_samples.jpg`` of every split.

    Args:
        report: Of the check.
        folder: Made if it is not there.

    Returns:
        The files; there are no samples of a split without an image that can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, split in report.splits.items():
        written.append(folder / f"{name}_statistics.png")
        draw_statistics(split.annotations, written[-1])
        if samples := _samples(split):
            written.append(folder / f"{name}_samples.jpg")
            with replacing(written[-1]) as temporary:
                mosaic(samples).save(temporary)
    return written


def _samples(report: SplitReport) -> list[Image.Image]:
    """Images from all over the file, those with instances first."""
    table = report.annotations.arrays.instance_table()
    full = np.zeros(len(report.annotations.images), bool)
    full[table.image_places] = True
    usable = np.array([p not in report.unusable for p in range(len(full))], bool)
    places = np.flatnonzero(full & usable)
    if not len(places):
        places = np.flatnonzero(usable)
    chosen = places[np.linspace(0, len(places) - 1, min(_SAMPLES, len(places))).astype(int)]
    images = []
    for place in chosen.tolist():
        try:
            images.append(_sample(report, place))
        except BotvisionError:
            continue  # a check without contents has not seen that it cannot be read
    return images


def _sample(report: SplitReport, place: int) -> Image.Image:
    annotations = report.annotations
    record = annotations.images[place]
    image = F.pil_to_tensor(report.images.read(record["file_name"]))
    height, width = image.shape[1:]
    if (record["height"], record["width"]) != (height, width):
        raise BotvisionError("of another size")
    instances = annotations.instances[record["id"]]
    boxes = torch.tensor([each["bbox"] for each in instances], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = {category.id: i + 1 for i, category in enumerate(annotations.categories)}
    names = {category.id: category.name for category in annotations.categories}
    masks = [instance_mask(each, height, width) for each in instances]
    photo = draw_instances(
        image,
        boxes,
        [labels[each["category_id"]] for each in instances],
        [names[each["category_id"]] for each in instances],
        torch.from_numpy(np.stack(masks)) if masks else None,
    )
    photo.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return photo
