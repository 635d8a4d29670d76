"""Train the demo's recipe with several rates of attention's parameters: AP and health.

``attention_collapse.json`` has a row per run: metrics of the best weights, and the health of their
attention on 32 validation scenes. Runs whose rows are there are not repeated, and interrupted ones
are resumed. Without seeds, the table of the rows is printed and nothing else done.

    python benchmarks/attention_collapse.py --output benchmarks/results
    python benchmarks/attention_collapse.py --output FOLDER --seed 0 --seed 1 --seed 2
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from botvision.attention.health import LayerHealth
from botvision.datasets.handwriting import write_handwriting
from botvision.files import write_json_lists
from botvision.predict.attention_use import measure_attention
from botvision.predict.loading import load
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import resume_run, train_recipe
from botvision.training.run_folder import RunFolder

_SCENES = (2400, 200)  # the demo's, for training and validation
_TWIN = 'model.backbone_arguments={"channels":[32,64,128,256],"stem_type":"deep","stem_width":16}'


def _rates(projections: float, positions: float) -> tuple[str, ...]:
    return (
        f"training.attention_lr_scale={projections}",
        f"training.position_lr_scale={positions}",
    )


_SETTINGS = {
    "alike": _rates(1, 1),
    "recipe": _rates(0.1, 3),
    "recipe_without_positions": (
        *_rates(0.1, 3),
        'model.backbone_arguments={"position":"none"}',
    ),
    "resnet": (*_rates(1, 1), "model.backbone=resnet26", _TWIN),
    "projections_0.1": _rates(0.1, 1),
    "projections_0.1_positions_10": _rates(0.1, 10),
}


def main(
    output: Annotated[Path, typer.Option(help="Folder of the rows, and of data and runs.")],
    seed: Annotated[list[int] | None, typer.Option(help="Seed to train (repeatable).")] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(_SETTINGS)}; all if none.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Override for all runs, as for train.")
    ] = None,
) -> None:
    """Train, measure and tabulate; see the module."""
    file = output / "attention_collapse.json"
    rows = json.loads(file.read_text())["runs"] if file.exists() else []
    done = {(row["setting"], row["seed"]) for row in rows}
    for each in seed or ():
        for name in setting or _SETTINGS:
            if (name, each) not in done:
                rows.append(_run(output, name, each, override or []))
                write_json_lists(file, {}, {"runs": rows})
    _print(rows)


def _run(output: Path, setting: str, seed: int, overrides: Sequence[str]) -> dict[str, Any]:
    data, run = output / "data", RunFolder(output / "runs" / f"{setting}_seed{seed}")
    if not data.exists():
        train, val = _SCENES
        write_handwriting(data, train=train, val=val)
    given = [f"data.folder={json.dumps(str(data))}", f"training.seed={seed}", *overrides]
    recipe = read_recipe("demo", [*given, *_SETTINGS[setting]])
    if run.path.exists():
        resume_run(run.path)
    else:
        train_recipe(recipe, run.path)
    predictor = load(run.best)
    metrics = predictor.description.metrics
    layers = [] if setting == "resnet" else measure_attention(predictor).layers
    return {
        "setting": setting,
        "seed": seed,
        "backbone": recipe.model.backbone,
        "backbone_arguments": recipe.model.backbone_arguments,
        "attention_lr_scale": recipe.training.attention_lr_scale,
        "position_lr_scale": recipe.training.position_lr_scale,
        "box_ap": round(metrics["box_ap"], 4),
        "mask_ap": round(metrics["mask_ap"], 4),
        "attention": [asdict(layer) for layer in layers],
    }


def _print(rows: Sequence[dict[str, Any]]) -> None:
    """Print the means and ranges over the seeds of each setting."""
    settings: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        settings[row["setting"]].append(row)
    table = Table("setting", "seeds", "box AP", "mask AP", "entropy", "information", "collapsed")
    for name, runs in settings.items():
        aps = (_mean([run[key] for run in runs]) for key in ("box_ap", "mask_ap"))
        layers = [LayerHealth(**layer) for run in runs for layer in run["attention"]]
        figures = ["-", "-", "-"]
        if layers:
            heads = sum(len(layer.entropy) for layer in layers)
            collapsed = sum(len(layer.collapsed) for layer in layers)
            figures = [_range(layers, "entropy"), _range(layers, "mutual_information")]
            figures.append(f"{collapsed} of {heads}")
        table.add_row(name, str(len(runs)), *aps, *figures)
    Console().print(table)
    Console().print(
        "AP: mean and range over the seeds; entropy (fraction of its maximum) and mutual "
        "information (nats): lowest and highest head of any seed; collapsed: heads of all seeds"
    )


def _mean(values: Sequence[float]) -> str:
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def _range(layers: Sequence[LayerHealth], figure: str) -> str:
    heads = [value for layer in layers for value in getattr(layer, figure)]
    return f"{min(heads):.2f} to {max(heads):.2f}"


if __name__ == "__main__":
    typer.run(main)
