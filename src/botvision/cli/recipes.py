"""The output of ``botvision train --list`` and ``--show``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from botvision.recipes.schema import Recipe


def print_recipes(*, as_json: bool) -> None:
    """Print the recipes of the package with the figures of the paper and the measured ones.

    Args:
        as_json: Whether to print JSON with all of ``about`` instead of a table.
    """
    import json

    from botvision.cli.display import open_console
    from botvision.recipes.reading import read_recipe, recipe_names

    recipes = [read_recipe(name) for name in recipe_names()]
    if as_json:
        print(json.dumps([_listed(recipe) for recipe in recipes]))
    else:
        open_console(as_json=False).print(recipes_table(recipes))


def recipes_table(recipes: "list[Recipe]") -> "Table":
    """Return a table with one row per recipe."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Recipes", box=box.SIMPLE_HEAD)
    table.add_column("name", no_wrap=True)
    for heading in ("title", "source", "paper", "measured"):
        table.add_column(heading)
    for recipe in recipes:
        about = recipe.about
        if about is None:
            table.add_row(escape(recipe.name))
        else:
            figures = ", ".join(f"{name} {value:.3f}" for name, value in _main(about.paper).items())
            cells = (recipe.name, about.title, about.source or "", figures, about.measured)
            table.add_row(*map(escape, cells))
    return table


def print_recipe(recipe: "Recipe") -> None:
    """Print a recipe as YAML with its bases resolved, as a run folder holds it."""
    import yaml

    content = recipe.model_dump(mode="json")
    print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000), end="")


def _listed(recipe: "Recipe") -> dict[str, object]:
    about = {} if recipe.about is None else recipe.about.model_dump(mode="json")
    return {"name": recipe.name, "task": recipe.task, **about}


def _main(figures: dict[str, float]) -> dict[str, float]:
    """Figures without those at single IoU thresholds, which would take a line each."""
    return {name: value for name, value in figures.items() if name[-2:] not in ("50", "75")}
