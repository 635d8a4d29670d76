"""The model card: README.md on the Hugging Face Hub, made from a run."""

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

IMAGES = (
    "val_predictions.jpg",
    "results.png",
    "pr_curve.png",
    "per_class.png",
    "calibration.png",
    "confusion_matrix.png",
    "labels.png",
)
"""Files of a run folder that a model card shows, where they are."""

_PAPER = "[Bottleneck Transformers for Visual Recognition](https://arxiv.org/abs/2101.11605)"


def model_card(name: str, description: dict[str, Any], run: Path | None) -> str:
    """The text of a model card: use, classes, metrics, data, command, packages and images.

    Args:
        name: Of the model.
        description: Its config.json and, for a run, the description in its weights file, both
            ``without_folders``.
        run: The run folder; None for a model without.
    """
    task = description["task"]
    detector = "categories" in description
    head = {
        "library_name": "timm" if "architecture" in description else "botvision",
        "pipeline_tag": "image-segmentation" if task == "instance-segmentation" else task,
        "tags": ["botnet", "bottleneck-transformer", task, "pytorch"],
    }
    model = description.get("model", {})
    if detector:
        title = f"{model['detector']} on {model['backbone']}"
    else:
        title = model.get("classifier") or description["architecture"]
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {name}",
        f"{title}, for {task.replace('-', ' ')}, after {_PAPER}.",
        f"## Use\n\n```python\n{_use(name, description)}\n```",
        _classes(description),
        _metrics(description.get("metrics", {}), description.get("step")),
    ]
    if run is not None:
        sections += [_data(description), _command(run), _recipe(description), _images(run)]
    return "\n\n".join(section for section in sections if section) + "\n"


def without_folders(value: Any) -> Any:
    """Strings, in lists and objects too, with only the last part of what are absolute paths."""
    if isinstance(value, dict):
        return {key: without_folders(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(part) for part in value]
    if not isinstance(value, str):
        return value
    start, equals, path = value.rpartition("=")  # --data=/somewhere, data.folder="/somewhere"
    bare = path.strip("\"'").removeprefix("hfds/").removeprefix("file://")
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(bare).is_absolute():
            return start + equals + flavour(bare).name
    return value


def _use(name: str, description: dict[str, Any]) -> str:
    where = f'"hf-hub:OWNER/{name}"'
    if "categories" in description:
        return (
            f"import botvision\n\npredictor = botvision.load({where})\n"
            'detections = predictor("image.jpg")'
        )
    if "architecture" not in description:
        return (
            f"import botvision\n\npredictor = botvision.load({where})\n"
            'classifications = predictor("image.jpg")  # class_id: places in predictor.classes'
        )
    if "botify" in description:
        return (
            f"from botvision.weights.hub import from_pretrained\n\nmodel = from_pretrained({where})"
        )
    return f"import botvision\nimport timm\n\nmodel = timm.create_model({where}, pretrained=True)"


def _classes(description: dict[str, Any]) -> str:
    labels = description.get("label_names")
    shown = f": {', '.join(map(str, labels))}" if labels else ""
    return f"## Classes\n\n{description['num_classes']}{shown}."


def _metrics(metrics: dict[str, Any], step: int | None) -> str:
    rows = [
        f"| {name} | {value:.4f} |"
        for name, value in metrics.items()
        if isinstance(value, float) and not name.startswith("negative_")  # a loss turned round
    ]
    if not rows:
        return ""
    after = "" if step is None else f"On the validation split, after {step} steps.\n\n"
    return "\n".join([f"## Metrics\n\n{after}| metric | value |\n|---|---|", *rows])


def _data(description: dict[str, Any]) -> str:
    folder = description.get("recipe", {}).get("data", {}).get("folder")
    return f"## Data\n\nThe folder `{folder}`." if folder else ""


def _command(run: Path) -> str:
    try:
        environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # weights that lie alone
        return ""
    command = " ".join(map(str, without_folders(environment.get("command", []))))
    packages = environment.get("packages", {})
    versions = ", ".join(f"{package} {version}" for package, version in packages.items())
    return f"## Training\n\n```bash\n{command}\n```\n\nWith {versions}."


def _recipe(description: dict[str, Any]) -> str:
    recipe = description.get("recipe")
    return f"```yaml\n{yaml.safe_dump(recipe, sort_keys=False)}```" if recipe else ""


def _images(run: Path) -> str:
    return "\n\n".join(
        f"![{Path(name).stem.replace('_', ' ')}]({name})"
        for name in IMAGES
        if (run / name).exists()
    )
