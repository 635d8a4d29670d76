"""``botvision benchmark``."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="Measure speed, memory and costs.", no_args_is_help=True)

Batch = Annotated[int, typer.Option(min=1, help="Batch size.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.callback()
def benchmark() -> None:
    """Measure speed, memory and costs of attention layers, backbones and training."""


@app.command()
def attention(
    size: Annotated[
        list[str] | None,
        typer.Option(help="Map, HEIGHTxWIDTH (repeatable); 32x32 and 64x64 by default."),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, bfloat16, float16 or float64 (repeatable); float32 by default."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="auto, another implementation, bottleneck-transformer-pytorch, timm or sdpa-mask "
            "(repeatable); all by default. Ratios are to the first."
        ),
    ] = None,
    batch: Batch = 1,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 4,
    head_dim: Annotated[int, typer.Option(min=1, help="Channels per head.")] = 128,
    device: Device = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Budget to time one map, dtype and pass.")
    ] = 8.0,
    output: Annotated[
        Path, typer.Option(help="Folder for benchmark.json and benchmark.png.")
    ] = Path("runs/benchmark/attention"),
    as_json: AsJson = False,
) -> None:
    """Time and memory of the attention layer, compared with other packages' layers.

    All layers compute the same function: projection, relative positions,
    softmax, values. They take turns with each other and with a large matrix
    product, used as the peak for the utilization column.

    Example: botvision benchmark attention --size 64x64 --size 96x64 --dtype bfloat16
    """
    from botvision.benchmark.attention_benchmark import AttentionSettings, benchmark_attention
    from botvision.cli.benchmark_tables import attention_table

    settings = AttentionSettings.checked(
        sizes=size or (),
        dtypes=dtype or (),
        layers=layer or (),
        batch=batch,
        heads=heads,
        head_dim=head_dim,
        device=device,
        seconds=seconds,
    )
    output.mkdir(parents=True, exist_ok=True)
    _measure(partial(benchmark_attention, settings), attention_table, output, as_json=as_json)


@app.command()
def backbone(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME or NAME@SIDE (repeatable) of a botvision or timm model, by default at its "
            "own image size; resnet50, botnet50, seresnet50 and efficientnet_b0 by default. Ratios "
            "are to the first."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32",
    batch: Batch = 1,
    device: Device = None,
    seconds: Annotated[float, typer.Option(min=0, help="Budget to time one pass.")] = 8.0,
    output: Annotated[
        Path, typer.Option(help="Folder for benchmark.json and benchmark.png.")
    ] = Path("runs/benchmark/backbone"),
    as_json: AsJson = False,
) -> None:
    """Compute time, memory, parameters and multiply-adds of botvision and timm models.

    The forward pass is that of the evaluation mode; forward and backward in
    training mode is what the paper calls compute time. The models take turns.

    Example: botvision benchmark backbone --model botnet_t7@384 --model tf_efficientnet_b7@600

    Example: botvision benchmark backbone --model resnet50@1024 --model botnet50@1024
    """
    from botvision.benchmark.backbone_benchmark import BackboneSettings, benchmark_backbones
    from botvision.cli.benchmark_tables import backbone_table

    settings = BackboneSettings.checked(
        models=model or (), dtype=dtype, batch=batch, device=device, seconds=seconds
    )
    output.mkdir(parents=True, exist_ok=True)
    _measure(partial(benchmark_backbones, settings), backbone_table, output, as_json=as_json)


@app.command()
def training(
    data: Annotated[str, typer.Option(help="Data folder: COCO layout or class folders.")],
    split: Annotated[
        str | None, typer.Option(help="Split to train on; the recipe's by default.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a YAML file.")] = "demo",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override: training.batch_size=2 (repeatable)."),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps that are measured in each part.")] = 20,
    output: Annotated[Path, typer.Option(help="Folder for benchmark.json.")] = Path(
        "runs/benchmark/training"
    ),
    as_json: AsJson = False,
) -> None:
    """Fraction of time that training waits for data, and the overhead of its loop.

    The overhead is measured over bare steps (forward, backward, optimizer),
    which take turns with the loop's on the same batches in memory.

    Example: botvision benchmark training --data COCO --split val --set training.batch_size=2
    """
    import json

    from botvision.benchmark.training_benchmark import benchmark_training
    from botvision.cli.benchmark_tables import training_table
    from botvision.recipes.reading import read_recipe

    changes = [*(overrides or ()), f"data.folder={json.dumps(data)}"]
    if split is not None:
        changes += [f"data.{key}_split={json.dumps(split)}" for key in ("train", "val")]
    chosen = read_recipe(recipe, changes)
    _measure(
        partial(benchmark_training, chosen, steps=steps), training_table, output, as_json=as_json
    )


def _measure(
    run: Callable[..., Any], table: Callable[[Any], "Table"], output: Path, *, as_json: bool
) -> None:
    """Run a benchmark, write its report and print it.

    Args:
        run: Benchmark; its argument ``progress`` is called with the current step.
        table: Makes the table of a report.
        output: Folder of the report.
        as_json: Whether to print JSON instead of the table.
    """
    import json
    from dataclasses import asdict

    from botvision.benchmark.plots import write_report
    from botvision.cli.display import open_console

    console = open_console(as_json=as_json)
    with console.status("") as status:
        report = run(progress=status.update)
    output.mkdir(parents=True, exist_ok=True)
    written = write_report(report, output)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    console.print(table(report))
    are = "is" if len(written) == 1 else "are"
    console.print(f"{' and '.join(written)} {are} in {output}")
