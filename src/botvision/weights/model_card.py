"""The model card: README.md on the Hugging Face Hub, made from a run."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from botvision.weights.file import Description

FIGURES = (
    "val_predictions.jpg",
    "results.png",
    "pr_curve.png",
    "per_class.png",
    "calibration.png",
    "confusion_matrix.png",
    "labels.png",
)
"""Files of a run folder that a model card shows if they exist."""

TIMM_USAGE = (
    'import botvision\nimport timm\n\nmodel = timm.create_model("{where}", pretrained=True)'
)
"""Code that uses a network that timm builds, for ``model_card``."""

_PAPER = "[Bottleneck Transformers for Visual Recognition](https://arxiv.org/abs/2101.11605)"


def model_card(
    name: str,
    *,
    pipeline_tag: str,
    title: str,
    usage: str,
    config: Mapping[str, Any],
    description: Description,
    run: Path | None,
) -> str:
    """Return the text of a model card: use, classes, metrics, data, command and figures.

    Args:
        name: Name of the model.
        pipeline_tag: Task as the Hub names it.
        title: Network in a few words.
        usage: Python code that uses the model; ``{where}`` stands for the repository.
        config: Content of config.json.
        description: Description of the weights, ``without_folders``.
        run: Run folder; None for a model without.
    """
    task = str(config.get("task", pipeline_tag))
    head = {
        "library_name": "timm" if "architecture" in config else "botvision",
        "pipeline_tag": pipeline_tag,
        "tags": ["botnet", "bottleneck-transformer", task, "pytorch"],
    }
    code = usage.format(where=f"hf-hub:OWNER/{name}")
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {name}",
        f"{title}, for {task.replace('-', ' ')}, after {_PAPER}.",
        f"## Use\n\n```python\n{code}\n```",
        f"## Classes\n\n{len(description.classes)}: {', '.join(description.class_names)}.",
        _metrics(description.metrics, description.made_by.get("step")),
    ]
    if run is not None:
        recipe = description.recipe
        folder = description.recipe_group("data").get("folder")
        sections += [
            f"## Data\n\nThe folder `{folder}`." if folder else "",
            _command(run),
            f"```yaml\n{yaml.safe_dump(recipe, sort_keys=False)}```" if recipe else "",
            *(
                f"![{Path(name).stem.replace('_', ' ')}]({name})"
                for name in FIGURES
                if (run / name).exists()
            ),
        ]
    return "\n\n".join(section for section in sections if section) + "\n"


def without_folders(value: Any) -> Any:
    """Return a value in whose strings, in lists and objects too, paths are their last part."""
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


def _command(run: Path) -> str:
    try:
        environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # weights that lie alone
        return ""
    command = " ".join(map(str, without_folders(environment.get("command", []))))
    versions = ", ".join(f"{name} {it}" for name, it in environment.get("packages", {}).items())
    return f"## Training\n\n```bash\n{command}\n```\n\nWith {versions}."
