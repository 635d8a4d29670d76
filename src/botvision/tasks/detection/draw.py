"""Detections drawn on their image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as coco_mask
from PIL import Image
from torch import Tensor

from botvision.datasets.coco.annotations import Category
from botvision.images.draw import draw_instances


def draw_results(
    image: Tensor, results: Sequence[dict[str, Any]], categories: Sequence[Category]
) -> Image.Image:
    """Draw one image's records in COCO's results format.

    Args:
        image: [3, H, W], uint8 or float in 0..1.
        results: As ``coco_results`` makes them.
        categories: Classes in label order.
    """
    places = {category.id: place for place, category in enumerate(categories)}
    labels = [places[result["category_id"]] + 1 for result in results]
    captions = [
        f"{categories[label - 1].name} {result['score']:.2f}"
        for label, result in zip(labels, results, strict=True)
    ]
    boxes = torch.tensor([result["bbox"] for result in results]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = None
    if results and "segmentation" in results[0]:
        decoded = [coco_mask.decode(result["segmentation"]) for result in results]
        masks = torch.from_numpy(np.stack(decoded))
    return draw_instances(image, boxes, labels, captions, masks)
