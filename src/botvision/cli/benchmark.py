"""``botvision benchmark``."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from botvision.cli.display import open_console, print_plain
from botvision.cli.options import WEIGHTS_HELP, AsJson, Data, Overrides, with_keys
from botvision.files import quoted

app = typer.Typer(
    help="Measure speed, memory and costs of attention layers, backbones, training and prediction.",
    no_args_is_help=True,
)

Batch = Annotated[int, typer.Option(min=1, help="Batch size.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")]
Output = Annotated[Path, typer.Option(help="Folder for benchmark.json and benchmark.png.")]
_DTYPES = "float32, bfloat16, float16 or float64"
_ROOT = Path("runs/benchmark")


@app.command()
def attention(
    size: Annotated[
        list[str] | None,
        typer.Option(help="Map, HEIGHTxWIDTH (repeatable); 32x32 and 64x64 by default."),
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help=f"{_DTYPES} (repeatable); float32 by default.")
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
    output: Output = _ROOT / "attention",
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

    settings = AttentionSettings(
        sizes=size or (),
        dtypes=dtype or (),
        layers=layer or (),
        batch=batch,
        heads=heads,
        head_dim=head_dim,
        device=device or "",
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
    dtype: Annotated[str, typer.Option(help=f"{_DTYPES}.")] = "float32",
    batch: Batch = 1,
    device: Device = None,
    seconds: Annotated[float, typer.Option(min=0, help="Budget to time one pass.")] = 8.0,
    output: Output = _ROOT / "backbone",
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
        models=model or (), dtype=dtype, batch=batch, device=device or "", seconds=seconds
    )
    output.mkdir(parents=True, exist_ok=True)
    _measure(partial(benchmark_backbones, settings), backbone_table, output, as_json=as_json)


@app.command()
def training(
    data: Data,
    split: Annotated[
        str | None, typer.Option(help="Split to train on; the recipe's by default.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a YAML file.")] = "demo",
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps that are measured in each part.")] = 20,
    output: Annotated[Path, typer.Option(help="Folder for benchmark.json.")] = _ROOT / "training",
    as_json: AsJson = False,
) -> None:
    """Fraction of time that training waits for data, and the overhead of its loop.

    The overhead is measured over bare steps (forward, backward, optimizer),
    which take turns with the loop's on the same batches in memory.

    Example: botvision benchmark training --data COCO --split val --set training.batch_size=2
    """
    from botvision.benchmark.training_benchmark import benchmark_training
    from botvision.cli.benchmark_tables import training_table
    from botvision.recipes.reading import read_recipe

    changes = with_keys(
        overrides, data__folder=data, data__train_split=split, data__val_split=split
    )
    run = partial(benchmark_training, read_recipe(recipe, changes), steps=steps)
    _measure(run, training_table, output, as_json=as_json)


@app.command()
def predict(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Images of one size, or folders of them."),
    ],
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)],
    batch: Batch = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 3,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Images per second of predictions of files, beside those of the detector alone.

    Example: botvision benchmark predict PHOTOS --weights runs/demo/run/best.safetensors
    """
    from botvision.cli.benchmark_tables import prediction_table
    from botvision.predict.loading import load
    from botvision.predict.sources import find_sources
    from botvision.predict.speed import benchmark_prediction

    console = open_console(as_json=as_json)
    found = find_sources(sources)
    with console.status("") as status:
        speed = benchmark_prediction(
            load(weights, device),
            found.paths,
            batch_size=batch,
            rounds=rounds,
            progress=status.update,
        )
    if as_json:
        print(json.dumps(asdict(speed)))
        return
    console.print(prediction_table(speed))


def _measure(
    run: Callable[..., Any], table: Callable[[Any], Table], output: Path, *, as_json: bool
) -> None:
    """Run a benchmark, whose ``progress`` takes the current step; write and print its report."""
    from botvision.benchmark.plots import write_report

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
    print_plain(console, f"{' and '.join(written)} {are} in {quoted(output)}")
