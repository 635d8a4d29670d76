"""``botvision attention-health``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from botvision.cli.display import counting_steps, open_console
from botvision.cli.options import WEIGHTS_HELP, AsJson, DataOfTraining, Device, Split

if TYPE_CHECKING:
    from botvision.predict.attention_use import AttentionReport

_SHOWN = 2  # metrics in the table; --json has all of the main ones


def attention_health(
    weights: Annotated[str, typer.Argument(help=WEIGHTS_HELP)],
    data: DataOfTraining = None,
    split: Split = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Evaluate with disturbed attention as well.")
    ] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show what the heads of a trained network do, and with --ablate whether it uses them.

    Entropy is a fraction of its maximum: 1 is uniform attention. Mutual information, in nats, says
    how much of where a head looks depends on where it looks from. Logits are standard deviations
    over the keys, distance is in cells of the map.

    Example: botvision attention-health runs/demo/run/best.safetensors --data runs/demo/data

    Example: botvision attention-health runs/demo/run/best.safetensors --ablate --json
    """
    from botvision.inspection.attention_health import collapse_note, short_name
    from botvision.predict.attention_use import measure_attention

    console = open_console(as_json=as_json)
    with counting_steps(console) as progress:
        report = measure_attention(
            weights, data, split=split, ablate=ablate, device=device, progress=progress
        )
    if as_json:
        content = asdict(report)
        for layer, health in zip(content["layers"], report.layers, strict=True):
            layer["collapsed"] = health.collapsed
        print(json.dumps(content))
        return
    title = f"attention of {weights} on {report.images} images"
    table = Table("layer", "map", "head", title=title)
    for name in ("entropy", "information", "content logits", "position logits", "distance"):
        table.add_column(name, justify="right")
    table.add_column("")
    for layer in report.layers:
        for head, entropy in enumerate(layer.entropy):
            figures = (
                entropy,
                layer.mutual_information[head],
                layer.content_std[head],
                layer.position_std[head],
                layer.distance[head],
            )
            first = head == 0
            table.add_row(
                short_name(layer.layer) if first else "",
                "x".join(map(str, layer.map_size)) if first else "",
                str(head),
                *(f"{figure:.2f}" for figure in figures),
                "collapsed" if head in layer.collapsed else "",
                end_section=head == len(layer.entropy) - 1,
            )
    console.print(table)
    for layer in report.layers:
        if layer.overlap is not None:
            console.print(
                f"{short_name(layer.layer)}: two heads have {100 * layer.overlap:.0f}% of their "
                "attention in common"
            )
    if note := collapse_note(report.layers):
        console.print(note)
    if report.metrics is not None:
        console.print(_ablation_table(report, report.metrics))


def _ablation_table(report: "AttentionReport", metrics: dict[str, float]) -> Table:
    from botvision.inspection.attention_health import short_name

    table = Table("attention", "layers", title="metrics with disturbed attention")
    shown = [*metrics][:_SHOWN]
    for name in shown:
        table.add_column(name, justify="right")
    whole = (f"{metrics[name]:.3f}" for name in shown)
    table.add_row("as trained", "", *whole, end_section=True)
    for each in report.ablations:
        layers = "all" if len(each.layers) == len(report.layers) else short_name(each.layers[0])
        changes = (
            f"{each.metrics[name]:.3f} ({each.metrics[name] - metrics[name]:+.3f})"
            for name in shown
        )
        table.add_row(each.ablation.replace("_", " "), layers, *changes)
    return table
