"""``botvision benchmark``."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="Measure speed, memory and costs beside others'.", no_args_is_help=True)

Batch = Annotated[int, typer.Option(min=1, help="Maps or images at a time.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; a GPU where there is one if none.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.callback()
def benchmark() -> None:
    """Measure speed, memory and costs beside others', all in one run."""


@app.command()
def attention(
    size: Annotated[
        list[str] | None,
        typer.Option(help="Map, HEIGHTxWIDTH (repeatable); 32x32 and 64x64 if none."),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="float32, bfloat16, float16 or float64 (repeatable); float32 if none."),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="auto, another implementation of ours, bottleneck-transformer-pytorch, timm or "
            "sdpa-mask (repeatable); all if none. Ratios are to the first."
        ),
    ] = None,
    batch: Batch = 1,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 4,
    head_dim: Annotated[int, typer.Option(min=1, help="Channels of a head.")] = 128,
    device: Device = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Time for the rounds of one map, dtype and pass.")
    ] = 8.0,
    output: Annotated[
        Path, typer.Option(help="Folder for benchmark.json and benchmark.png.")
    ] = Path("runs/benchmark/attention"),
    as_json: AsJson = False,
) -> None:
    """Time and memory of the attention layer, our implementations beside other packages'.

    All layers compute the same function: projection, relative positions,
    softmax, values. They take turns, and a large matrix product with them,
    whose rate is the peak that shares are of.

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
            help="NAME or NAME@SIDE (repeatable), one of ours or timm's, at its own image size if "
            "no side is given; resnet50, botnet50, seresnet50 and efficientnet_b0 if none. "
            "Ratios are to the first."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32",
    batch: Batch = 1,
    device: Device = None,
    seconds: Annotated[float, typer.Option(min=0, help="Time for the rounds of one pass.")] = 8.0,
    output: Annotated[
        Path, typer.Option(help="Folder for benchmark.json and benchmark.png.")
    ] = Path("runs/benchmark/backbone"),
    as_json: AsJson = False,
) -> None:
    """Compute time, memory, parameters and multiply-adds of networks, ours beside timm's.

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
    data: Annotated[str, typer.Option(help="Data folder: COCO's layout, or class folders.")],
    split: Annotated[
        str | None, typer.Option(help="Split to train on; the recipe's if none.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a YAML file.")] = "demo",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override: training.batch_size=2 (repeatable)."),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps to count in each part.")] = 20,
    output: Annotated[Path, typer.Option(help="Folder for benchmark.json.")] = Path(
        "runs/benchmark/training"
    ),
    as_json: AsJson = False,
) -> None:
    """Share of time that training waits for data, and what its loop costs beyond the model.

    The loop's cost is over bare steps (forward, backward, optimizer), which
    take turns with its own on the same batches in memory.

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
    """Run a benchmark, write its report into its folder, and print it.

    Args:
        run: The benchmark; is told where to say what is going on, ``progress``.
        table: Of the report.
        output: The folder.
        as_json: Print JSON instead of the table.
    """
    import json
    from dataclasses import asdict

    from botvision.benchmark.report_files import write_report
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
