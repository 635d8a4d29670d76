"""config.json of a model on the Hugging Face Hub, written and read."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import to_2tuple
from torch import nn

from botvision.errors import BotvisionError, nearest
from botvision.models import create_model
from botvision.models.botify import botify
from botvision.weights.file import Description, InputDescription, ModelClass

_PREPROCESSING = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")
# What is taken of timm's pretrained_cfg: nothing that would have it read or fetch other weights.
_CONFIGURED = (*_PREPROCESSING, "pool_size", "first_conv", "classifier", "label_names")
_BARRED = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}


def network_config(
    network: Any,
    *,
    labels: list[str] | None,
    arguments: dict[str, Any] | None,
    preprocessing: dict[str, Any],
) -> dict[str, Any]:
    """Return a network's config.json as timm writes it, having built the network from it.

    Args:
        network: The network.
        labels: Names of its classes; None: those of its configuration.
        arguments: Arguments of ``create_model``; None: those that timm recorded.
        preprocessing: Preparation of images where it differs from the network's configuration.

    Raises:
        ValueError: If the network is none of timm's, or not what its arguments build.
    """
    base = getattr(network, "pretrained_cfg", None)
    classes = getattr(network, "num_classes", None)
    if not isinstance(base, dict) or "architecture" not in base or classes is None:
        raise ValueError(
            "source: expected a classifier that timm.create_model or botvision.create_model built, "
            f"got {type(network).__name__}"
        )
    if labels is not None and len(labels) != classes:
        raise ValueError(f"labels: expected {classes}, as many as classes, got {len(labels)}")
    unknown = preprocessing.keys() - set(_PREPROCESSING)
    if unknown:
        raise ValueError(
            f"preprocessing: expected some of {', '.join(_PREPROCESSING)}, got {min(unknown)!r}"
        )
    arguments = arguments if arguments is not None else getattr(network, "_model_args", None)
    if arguments is None:
        raise ValueError(
            "arguments: expected those of create_model, for this version of timm does not record "
            "them; {} if there were none"
        )
    arguments = {
        name: value
        for name, value in {**arguments, "num_classes": classes}.items()
        if name not in _BARRED and not name.endswith("drop_rate")
    }
    prepared = {key: base[key] for key in _CONFIGURED if base.get(key) is not None}
    if "img_size" in arguments:
        prepared["input_size"] = (base["input_size"][0], *to_2tuple(arguments["img_size"]))
        prepared.pop("pool_size", None)
    channels = getattr(network, "in_chans", prepared["input_size"][0])
    prepared["input_size"] = (channels, *prepared["input_size"][1:])
    prepared |= preprocessing
    if labels is not None or classes != base.get("num_classes"):
        prepared.pop("label_names", None)
    config: dict[str, Any] = {
        "architecture": base["architecture"],
        "num_classes": classes,
        "num_features": network.num_features,
        "model_args": arguments,
        "pretrained_cfg": {**prepared, "num_classes": classes},
    }
    if labels is not None:
        config["label_names"] = list(labels)
    if hasattr(network, "botify_arguments"):
        config["botify"] = network.botify_arguments
    try:
        config = json.loads(json.dumps(config))
        with torch.device("meta"):
            rebuilt = build_network(config, Path("config.json")).state_dict()
    except (TypeError, BotvisionError) as error:
        raise ValueError(f"arguments: the network cannot be built from them ({error})") from error
    own = network.state_dict()
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in rebuilt.items()}:
        odd = next((n for n in own if n not in rebuilt or own[n].shape != rebuilt[n].shape), "")
        raise ValueError(
            f"source: expected what create_model({base['architecture']!r}, **{arguments}) builds, "
            f"got a network that was changed since ({odd or 'tensors are missing'})"
        )
    return config


def network_description(config: dict[str, Any], path: Path) -> Description:
    """Return the description of a network that timm or ``save_pretrained`` published.

    Args:
        config: Content of its config.json.
        path: The config.json, for errors.

    Raises:
        BotvisionError: If it lacks what is needed to use the network.
    """
    arguments = _network_arguments(config, path)
    try:
        prepared = {**config, **config.get("pretrained_cfg", {})}
        count = int(arguments.pop("num_classes", config.get("num_classes", 1000)))
        names = config.get("label_names") or prepared.get("label_names")
        model: dict[str, Any] = {
            "classifier": config["architecture"],
            "classifier_arguments": arguments,
            "image_size": prepared["input_size"][-1],
        }
        if "botify" in config:
            model["botify"] = config["botify"]
        return Description(
            task="classification",
            model=model,
            classes=tuple(
                ModelClass(id=index, name=str(name))
                for index, name in enumerate(names or range(count))
            ),
            input=InputDescription(
                size=prepared["input_size"][-1],
                mean=prepared["mean"],
                std=prepared["std"],
                interpolation=prepared.get("interpolation") or "bicubic",
                crop=prepared.get("crop_pct") or 0.875,
                precision="float32",
                memory_format="contiguous_format",
            ),
        )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        reason = " ".join(repr(error).split())
        raise BotvisionError(
            f"{path}: expected a config.json as timm writes it ({reason})"
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a config.json.

    Raises:
        BotvisionError: If it is damaged or that of a detector.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BotvisionError(f"{path}: expected JSON ({error})") from error
    if isinstance(config, dict) and config.get("library_name") == "botvision":
        raise BotvisionError(
            f"{path}: expected a network that timm builds, got one of botvision's own, such as a "
            "detector, which botvision.load reads"
        )
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise BotvisionError(f"{path}: expected a field 'architecture', the name of a timm model")
    return config


def build_network(config: dict[str, Any], path: Path) -> nn.Module:
    """Return the network that a config.json describes, with random weights.

    Args:
        config: Content of the config.json.
        path: The config.json, for errors.

    Raises:
        BotvisionError: If there is no such network or it does not take the arguments.
    """
    name = config["architecture"]
    if not timm.is_model(name):
        raise BotvisionError(
            f"{path}: architecture: {name!r} is unknown{nearest(name, timm.list_models())}"
        )
    arguments, prepared = _network_arguments(config, path), config.get("pretrained_cfg", config)
    if not isinstance(prepared, dict):
        raise BotvisionError(f"{path}: expected an object in pretrained_cfg")
    prepared = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in prepared.items()
        if key in _CONFIGURED
    }
    classes = config.get("num_classes", 1000)
    if "label_names" in config:
        prepared["label_names"] = config["label_names"]
    try:
        network = create_model(
            name,
            pretrained_cfg={**prepared, "num_classes": classes},
            **{"num_classes": classes, **arguments},
        )
        if "botify" in config:
            botify(network, **config["botify"])
    except Exception as error:  # anything can be wrong with another's arguments
        reason = " ".join(str(error).split())
        raise BotvisionError(f"{path}: {name}: {type(error).__name__}: {reason}") from error
    return network


def _network_arguments(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the arguments of a network, none of which reads or fetches other weights."""
    arguments = config.get("model_args", {})
    if not isinstance(arguments, dict):
        raise BotvisionError(f"{path}: expected an object in model_args")
    if barred := sorted(_BARRED & arguments.keys()):
        raise BotvisionError(
            f"{path}: model_args: expected arguments of {config['architecture']}, got "
            f"{barred[0]!r}, which would read other weights"
        )
    return dict(arguments)
