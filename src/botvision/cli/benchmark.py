"""``botvision benchmark``."""

from pathlib import Path
from typing import Annotated

import typer

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
    import json
    from dataclasses import asdict

    from botvision.benchmark.attention_benchmark import AttentionSettings, benchmark_attention
    from botvision.benchmark.report_files import write_report
    from botvision.cli.benchmark_tables import attention_table
    from botvision.cli.display import open_console

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
    console = open_console(as_json=as_json)
    with console.status("") as status:
        report = benchmark_attention(settings, progress=status.update)
    write_report(report, output)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        console.print(attention_table(report))
        console.print(f"benchmark.json and benchmark.png are in {output}")


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
    import json
    from dataclasses import asdict

    from botvision.benchmark.backbone_benchmark import BackboneSettings, benchmark_backbones
    from botvision.benchmark.report_files import write_report
    from botvision.cli.benchmark_tables import backbone_table
    from botvision.cli.display import open_console

    settings = BackboneSettings.checked(
        models=model or (), dtype=dtype, batch=batch, device=device, seconds=seconds
    )
    output.mkdir(parents=True, exist_ok=True)
    console = open_console(as_json=as_json)
    with console.status("") as status:
        report = benchmark_backbones(settings, progress=status.update)
    write_report(report, output)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        console.print(backbone_table(report))
        console.print(f"benchmark.json and benchmark.png are in {output}")
