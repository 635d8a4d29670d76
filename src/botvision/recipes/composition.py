"""Recipes and their bases, merged key by key into one content."""

from copy import deepcopy
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from botvision.errors import BotvisionError, nearest
from botvision.recipes.paper_rows import paper_rows
from botvision.recipes.schema import task_of
from botvision.tasks.task import find_task

_SUFFIXES = (".yaml", ".yml")
# Keys that describe one recipe; they do not hold for those based on it.
_OWN = ("name", "about")


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package, sorted."""
    return sorted([*_files(), *paper_rows()])


def composed(source: str) -> dict[str, Any]:
    """Return the content of a recipe merged with that of its bases.

    The key ``base`` names a recipe or piece of the package, another file (a path relative to this
    one), or a list of these. Later bases override earlier ones, and the recipe overrides them all:
    groups of keys are merged, lists and single values replaced. ``name`` and ``about`` are not
    inherited.

    Args:
        source: Name of a recipe of the package, or path of a YAML file.

    Raises:
        BotvisionError: If a recipe or base does not exist or is not a YAML group of keys, or if a
            recipe is its own base.
    """
    if not source.endswith(_SUFFIXES) and source not in recipe_names():
        raise BotvisionError(
            f"recipe {source!r} is unknown{nearest(source, recipe_names()) or ';'} "
            "a recipe file ends in .yaml"
        )
    return _composed(source, Path(), {})


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return two groups of keys merged; values of ``above`` take precedence."""
    result = dict(below)
    for key, value in above.items():
        replaced = result.get(key)
        if isinstance(replaced, dict) and isinstance(value, dict):
            result[key] = merged(replaced, value)
        else:
            result[key] = value
    return result


def _composed(source: str, folder: Path, users: dict[str, str]) -> dict[str, Any]:
    """Return the content of a recipe or piece, merged with that of its bases.

    Args:
        source: Name or path, as the command or another recipe gives it.
        folder: Folder that a path is relative to.
        users: Titles of the recipes that led here, by what identifies them.
    """
    path = folder / source
    is_file = source.endswith(_SUFFIXES)
    title = str(path) if is_file else source
    identity = str(path.resolve()) if is_file else source
    if identity in users:
        circle = " -> ".join([*users.values(), title])
        raise BotvisionError(f"{title}: base: a recipe cannot be its own base: {circle}")
    content = _file_content(path, title) if is_file else _library_content(source)
    bases = content.get("base", [])
    known = [*_files(), *_files("pieces"), *paper_rows()]
    result: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise BotvisionError(
                f"{title}: base: expected a name or a list of names, got {bases!r}"
            )
        if not base.endswith(_SUFFIXES) and base not in known:
            raise BotvisionError(
                f"{title}: base: {base!r} is unknown{nearest(base, known) or '.'} Expected a "
                "recipe of the package, a piece, or a file that ends in .yaml"
            )
        inherited = _composed(base, path.parent, {**users, identity: title})
        result = _merged_recipes(result, _without(inherited, *_OWN))
    return _merged_recipes(result, _without(content, "base"))


def _merged_recipes(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge two recipes; another kind of model keeps only the settings it has as well."""
    result = merged(below, above)
    if isinstance(below.get("model"), dict) and isinstance(above.get("model"), dict):
        before = _model_keys(below, below["model"])
        lost = before - _model_keys(result, result["model"]) - above["model"].keys()
        result["model"] = _without(result["model"], *lost)
    return result


def _model_keys(content: dict[str, Any], model: dict[str, Any]) -> frozenset[str]:
    try:
        return find_task(task_of(content)).model_keys(model)
    except BotvisionError:  # an unknown task, which is refused when the recipe is whole
        return frozenset()


def _without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


def _library_content(name: str) -> dict[str, Any]:
    if name in paper_rows():
        return deepcopy(paper_rows()[name])
    return _file_content({**_files(), **_files("pieces")}[name], name)


def _file_content(file: Path | Traversable, title: str) -> dict[str, Any]:
    if not file.is_file():
        raise BotvisionError(f"{title}: no such recipe file")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BotvisionError(f"{title}: not text in UTF-8 ({error})") from error
    except yaml.YAMLError as error:
        raise BotvisionError(f"{title}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BotvisionError(f"{title}: expected keys and values, got {type(content).__name__}")
    return content


@cache
def _files(folder: str = "") -> dict[str, Traversable]:
    """Recipe files of the package, or of a folder of them, by name."""
    library = resources.files("botvision.recipes") / "library" / folder
    files = [entry for entry in library.iterdir() if entry.name.endswith(_SUFFIXES)]
    return {Path(file.name).stem: file for file in files}
