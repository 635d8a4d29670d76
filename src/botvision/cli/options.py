"""Options that several commands share."""

import json
from typing import Annotated, Any

import typer

DATA_HELP = "Data folder: COCO's layout, or class folders."
WEIGHTS_HELP = "Weights file of a run, a published folder, or hf-hub:owner/name."

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Data = Annotated[str, typer.Option(help=DATA_HELP)]
DataOfTraining = Annotated[
    str | None, typer.Option(help="COCO folder or class folders; those of the training if none.")
]
Split = Annotated[str | None, typer.Option(help="Split of the data; as in the training if none.")]
Device = Annotated[
    str | None, typer.Option(help="Device, such as cpu or cuda:0; the best one if none.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override: training.epochs=3 (repeatable).")
]
MaxDetections = Annotated[
    int | None,
    typer.Option(min=1, help="Most objects found in an image; that of the training if none."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out images that cannot be read.")]
Tta = Annotated[
    bool, typer.Option("--tta", help="Horizontal-flip test-time augmentation (classifiers).")
]


def with_keys(overrides: list[str] | None, **keys: Any) -> tuple[str, ...]:
    """Return the overrides and those of further keys of the recipe, in which __ stands for a dot.

    A key whose value is None stays as the recipe has it.
    """
    given = {name.replace("__", "."): value for name, value in keys.items() if value is not None}
    return (*(overrides or ()), *(f"{key}={json.dumps(value)}" for key, value in given.items()))
