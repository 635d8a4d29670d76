"""Descriptions of earlier file formats, rewritten for the next one."""

from typing import Any

import timm

_RENAMED = {
    "queries": "num_queries",
    "width": "hidden_dim",
    "heads": "num_heads",
    "feedforward_width": "dim_feedforward",
    "images_at_once": "micro_batch_size",
    "workers": "num_workers",
}


def from_format_0(old: dict[str, Any]) -> dict[str, Any]:
    """Rewrite a description from before the format was numbered.

    It had ``categories`` for a detector and ``classes``, ``mean``, ``std`` and ``crop_share`` for
    a classifier; precision and memory format stood in the recipe.

    Raises:
        KeyError: If a key is missing.
    """
    model = {_RENAMED.get(key, key): value for key, value in old["model"].items()}
    if model.get("batch_norm") == "synchronised":
        model["batch_norm"] = "synchronized"
    # The recipe is information, but the batch size of an evaluation is taken from it.
    training = {_RENAMED.get(key, key): value for key, value in old["recipe"]["training"].items()}
    if "classifier" in model:
        task = "classification"
        classes = [{"id": index, "name": name} for index, name in enumerate(old["classes"])]
        prepared = {
            "mean": old["mean"],
            "std": old["std"],
            "interpolation": "bicubic",
            "crop": old["crop_share"],
        }
    else:
        task, classes = "detection", old["categories"]
        backbone = timm.get_pretrained_cfg(model["backbone"])
        prepared = {
            "mean": backbone.mean,
            "std": backbone.std,
            "interpolation": "bilinear",
            "crop": None,
        }
    channels_last = training["channels_last"]
    return {
        "format": 1,
        "task": task,
        "model": model,
        "classes": classes,
        "input": {
            "size": model["image_size"],
            **prepared,
            "precision": training["precision"],
            "memory_format": "channels_last" if channels_last else "contiguous_format",
        },
        "metrics": old.get("metrics", {}),
        "made_by": {"step": old.get("step")},
        "recipe": {**old["recipe"], "training": training},
    }
