"""Train the demo's recipe with several rates of attention's parameters: AP, health and use.

Each run leaves a JSON file with the metrics of its best weights, the health of their attention, and
the metrics with disturbed attention. The same call resumes; several processes may share a folder if
each has seeds or settings of its own.

    python benchmarks/attention_collapse.py --output results --seed 0 --seed 1 --seed 2
"""

import json
import statistics
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from botvision.datasets.handwriting import write_handwriting
from botvision.files import write_json
from botvision.predict.attention_use import measure_attention
from botvision.predict.evaluation import evaluate
from botvision.predict.loading import load
from botvision.recipes.reading import read_recipe
from botvision.recipes.running import resume_run, train_recipe
from botvision.training.run_folder import RunFolder

_ALIKE = ("training.attention_lr_scale=1", "training.position_lr_scale=1")
_TWIN = 'model.backbone_arguments={"channels":[32,64,128,256],"stem_type":"deep","stem_width":16}'
_SETTINGS = {
    "alike": _ALIKE,  # all parameters learn at one rate
    "recipe": (),  # as the recipe has it
    "recipe_without_positions": ('model.backbone_arguments={"position":"none"}',),
    "resnet": ("model.backbone=resnet26", _TWIN),
}


def main(
    output: Annotated[Path, typer.Option(help="Folder of data, runs and results.")],
    seed: Annotated[list[int], typer.Option(help="Seed (repeatable).")],
    setting: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(_SETTINGS)}; all if none.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Override for all runs, as for train.")
    ] = None,
) -> None:
    """Train, measure and tabulate; see the module."""
    data = output / "data"
    if not data.exists():
        write_handwriting(data, train=2400, val=200)
    for name in setting or _SETTINGS:
        for each in seed:
            _run(output, data, name, each, override or [])
    _print(output)


def _run(output: Path, data: Path, name: str, seed: int, overrides: list[str]) -> None:
    result, run = (
        output / f"{name}_seed{seed}.json",
        RunFolder(output / "runs" / f"{name}_seed{seed}"),
    )
    if result.exists():
        return
    given = [f"data.folder={json.dumps(str(data))}", f"training.seed={seed}", *overrides]
    recipe = read_recipe("demo", [*given, *_SETTINGS[name]])
    if run.path.exists():
        resume_run(run.path)
    else:
        train_recipe(recipe, run.path)
    predictor = load(run.best)
    metrics, attention = evaluate(predictor), None
    if name != "resnet":
        attention = asdict(measure_attention(predictor, ablate=True))
    kept = recipe.model_copy(update={"data": recipe.data.model_copy(update={"folder": None})})
    content = {"recipe": kept.model_dump(mode="json"), "metrics": metrics, "attention": attention}
    write_json(result, content)


def _print(output: Path) -> None:
    """Print the mean and deviation over the seeds of all results in the folder."""
    results: dict[str, list[Any]] = defaultdict(list)
    for path in sorted(output.glob("*_seed*.json")):
        results[path.stem.rpartition("_seed")[0]].append(json.loads(path.read_text()))
    table = Table(
        "setting", "seeds", "box AP", "mask AP", "entropy", "mutual information", "uniform"
    )
    for name, rows in results.items():
        figures = ["", "", ""]
        if rows[0]["attention"] is not None:
            figures = [_range(rows, "entropy"), _range(rows, "mutual_information"), _uniform(rows)]
        aps = (_mean([row["metrics"][key] for row in rows]) for key in ("box_ap", "mask_ap"))
        table.add_row(name, str(len(rows)), *aps, *figures)
    Console().print(table)
    Console().print(
        "entropy (fraction of the maximum) and mutual information (nats): lowest and highest head "
        "of any seed; uniform: change of box AP if all attention is made uniform"
    )


def _mean(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def _range(rows: list[Any], figure: str) -> str:
    heads = [
        value for row in rows for layer in row["attention"]["layers"] for value in layer[figure]
    ]
    return f"{min(heads):.2f} to {max(heads):.2f}"


def _uniform(rows: list[Any]) -> str:
    changes = []
    for row in rows:
        whole = row["attention"]
        changed = next(each for each in whole["ablations"] if each["ablation"] == "uniform")
        changes.append(changed["metrics"]["box_ap"] - whole["metrics"]["box_ap"])
    return f"{statistics.mean(changes):+.3f}"


if __name__ == "__main__":
    typer.run(main)
