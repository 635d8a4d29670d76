"""The output of ``botvision train --list`` and ``--show``."""

import json
from typing import TYPE_CHECKING

import yaml
from rich import box
from rich.markup import escape
from rich.table import Column, Table

from botvision.cli.display import open_console

if TYPE_CHECKING:
    from botvision.recipes.schema import Recipe


def print_recipes(*, as_json: bool) -> None:
    """Print the recipes of the package with the figures of the paper and the measured ones.

    Args:
        as_json: Whether to print JSON with all of ``about`` instead of a table.
    """
    from botvision.recipes.reading import read_recipe, recipe_names

    recipes = [read_recipe(name) for name in recipe_names()]
    if as_json:
        contents = [recipe.model_dump(mode="json") for recipe in recipes]
        rows = [
            {"name": each["name"], "task": each["task"], **(each["about"] or {})}
            for each in contents
        ]
        print(json.dumps(rows))
    else:
        open_console(as_json=False).print(recipes_table(recipes))


def recipes_table(recipes: "list[Recipe]") -> Table:
    """Return a table with one row per recipe."""
    columns = (Column("name", no_wrap=True), "title", "source", "paper", "measured")
    table = Table(*columns, title="Recipes", box=box.SIMPLE_HEAD)
    for recipe in recipes:
        about = recipe.about
        if about is None:
            table.add_row(escape(recipe.name))
        else:
            # Those at single IoU thresholds would take a line each.
            main = {name: v for name, v in about.paper.items() if name[-2:] not in ("50", "75")}
            figures = ", ".join(f"{name} {value:.3f}" for name, value in main.items())
            cells = (recipe.name, about.title, about.source or "", figures, about.measured)
            table.add_row(*map(escape, cells))
    return table


def print_recipe(recipe: "Recipe") -> None:
    """Print a recipe as YAML with its bases resolved, as a run folder holds it."""
    content = recipe.model_dump(mode="json")
    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000), end="")
