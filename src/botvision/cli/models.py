"""``botvision models``."""

from typing import Annotated

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the networks: parameters, multiply-adds and default input.

    Example: botvision models --json
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from botvision.models import list_models
    from botvision.models.costs import model_costs

    rows = [model_costs(name) for name in list_models()]
    if as_json:
        print(json.dumps([vars(row) for row in rows]))
        return
    table = Table("model", "parameters", "multiply-adds", "input", title="Networks")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.parameters / 1e6:.2f}M",
            f"{row.multiply_adds / 1e9:.2f}G",
            f"{row.input_size} x {row.input_size}",
        )
    Console().print(table)
