"""``botvision models``."""

import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from botvision.cli.display import figure_columns, open_console
from botvision.cli.options import AsJson
from botvision.errors import BotvisionError, nearest

if TYPE_CHECKING:
    from botvision.models.costs import ListedModel, ModelCosts
    from botvision.models.paper_costs import PaperCosts


def models(
    pattern: Annotated[
        str, typer.Argument(help="Names to list; * and ? stand for letters, as in a shell.")
    ] = "*",
    as_json: AsJson = False,
) -> None:
    """List the networks: default input, parameters, multiply-adds, and the paper's beside ours.

    Where the paper counted the network in another form, as T3 to T7 with
    squeeze-and-excitation in every block, a row of its own shows that form.

    Example: botvision models

    Example: botvision models 'botnet_t*' --json
    """
    from botvision.models.costs import listed_model
    from botvision.models.variants import VARIANTS

    known = [variant.name for variant in VARIANTS]
    names = [name for name in known if fnmatchcase(name, pattern)]
    if not names:
        raise BotvisionError(f"{pattern}: no such network of ours{nearest(pattern, known)}")
    console = open_console(as_json=as_json)
    with console.status("") as status:
        rows = []
        for name in names:
            status.update(f"counting {name}")
            rows.append(listed_model(name))
    if as_json:
        print(json.dumps([row.to_json() for row in rows]))
    else:
        console.print(_table(rows))


def _table(rows: "list[ListedModel]") -> Table:
    """A row for each network and, where the paper counted another form of it, for each form."""
    headings = ("input", "params", "mult-adds", "paper:\nparams", "paper:\nmult-adds", "note")
    table = Table("model", *figure_columns(*headings), box=box.SIMPLE_HEAD)
    table.title = "Networks, and the paper's figures"
    notes: list[str] = []
    for row in rows:
        compared = [(each.ours, each.paper) for each in row.compared]
        shown: list[tuple[ModelCosts, PaperCosts | None]] = [*compared]
        if row.costs not in [ours for ours, _ in compared]:
            shown.insert(0, (row.costs, None))
        for index, (ours, paper) in enumerate(shown):
            form = _form(paper) if index else row.costs.name
            figures = f"{ours.parameters / 1e6:.2f}M", f"{ours.multiply_adds / 1e9:.2f}G"
            table.add_row(escape(form), f"{ours.input_size}", *figures, *_published(paper, notes))
    legend = [f"{number}: {note}" for number, note in enumerate(notes, 1)]
    table.caption = "\n".join(map(escape, legend)) or None
    table.caption_justify = "left"
    return table


def _form(paper: "PaperCosts | None") -> str:
    """The arguments with which the paper counted a network; the image size has its own column."""
    arguments = paper.arguments.items() if paper else ()
    shown = [(name, value) for name, value in arguments if name != "img_size"]
    return ", ".join(f"  {name}" if value is True else f"  {name}={value}" for name, value in shown)


def _published(paper: "PaperCosts | None", notes: list[str]) -> tuple[str, str, str]:
    """The paper's parameters and multiply-adds, and numbers of notes, new ones being added."""
    from botvision.models.paper_costs import PAPER

    if paper is None:
        return "", "", ""
    numbers = []
    for note in (paper.contradiction, "" if paper.source == PAPER else f"From {paper.source}."):
        if note and note not in notes:
            notes.append(note)
        if note:
            numbers.append(str(notes.index(note) + 1))
    parameters = "" if paper.parameters is None else f"{paper.parameters / 1e6:.1f}M"
    return parameters, f"{paper.multiply_adds / 1e9:g}G", " ".join(numbers)
