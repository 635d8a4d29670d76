"""Recipe files and their bases, merged key by key into one content."""

from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from botvision.errors import BotvisionError, nearest
from botvision.tasks.task import DEFAULT_TASK, find_task

_PIECES = "pieces"
_SUFFIXES = (".yaml", ".yml")
# What a file says about itself; a recipe on its base is another recipe.
_OWN = ("name", "about")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(name for name, (_, is_piece) in _library().items() if not is_piece)


def composed(source: str) -> dict[str, Any]:
    """The content of a recipe and of its bases.

    A file may begin with ``base``: a recipe or a piece of the library, another file (a path
    relative to this one), or a list of these. Later ones override earlier ones, and the file
    overrides them all: groups of keys are merged, lists and single values replaced. ``name`` and
    ``about`` are not taken from a base.

    Args:
        source: Name of a recipe of ours, or path of a YAML file.

    Raises:
        BotvisionError: If there is no such recipe or base, if one is no YAML or no group of keys,
            or if a recipe is its own base.
    """
    if not _is_file_name(source) and source not in recipe_names():
        raise BotvisionError(
            f"recipe {source!r} is unknown{nearest(source, recipe_names()) or '.'} "
            "`botvision train --list` lists the recipes; a file ends in .yaml"
        )
    return _composed(source, Path(), {})


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two groups of keys as one: ``above`` counts, and what it does not say ``below`` says."""
    result = dict(below)
    for key, value in above.items():
        replaced = result.get(key)
        if isinstance(replaced, dict) and isinstance(value, dict):
            result[key] = merged(replaced, value)
        else:
            result[key] = value
    return result


def _composed(source: str, folder: Path, users: dict[str, str]) -> dict[str, Any]:
    """A file's content on that of its bases.

    Args:
        source: As the command or another file names it.
        folder: What a path is relative to.
        users: The files that led here, by what identifies them.
    """
    is_file = _is_file_name(source)
    path = folder / source
    title = str(path) if is_file else source
    identity = str(path.resolve()) if is_file else source
    if identity in users:
        circle = " -> ".join([*users.values(), title])
        raise BotvisionError(f"{title}: base: a recipe cannot be its own base: {circle}")
    users = {**users, identity: title}
    text = _file_text(path) if is_file else _library()[source][0].read_text(encoding="utf-8")
    content = _content(text, title)
    result: dict[str, Any] = {}
    for base in _bases(content, title):
        if not _is_file_name(base) and base not in _library():
            raise BotvisionError(
                f"{title}: base: {base!r} is unknown{nearest(base, _library()) or '.'} Expected a "
                "recipe that `botvision train --list` lists, a piece, or a file that ends in .yaml"
            )
        inherited = _composed(base, path.parent, users)
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
        return find_task(str(content.get("task", DEFAULT_TASK))).model_keys(model)
    except BotvisionError:  # an unknown task, which is refused when the recipe is whole
        return frozenset()


def _without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in keys}


def _bases(content: dict[str, Any], title: str) -> list[str]:
    base = content.get("base", [])
    bases = base if isinstance(base, list) else [base]
    for each in bases:
        if not isinstance(each, str):
            raise BotvisionError(f"{title}: base: expected a name or a list of names, got {base!r}")
    return bases


def _is_file_name(source: str) -> bool:
    return source.endswith(_SUFFIXES)


def _file_text(path: Path) -> str:
    if not path.is_file():
        raise BotvisionError(f"{path}: no such recipe file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BotvisionError(f"{path}: not text in UTF-8 ({error})") from error


def _content(text: str, title: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BotvisionError(f"{title}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BotvisionError(f"{title}: expected keys and values, got {type(content).__name__}")
    return content


@cache
def _library() -> dict[str, tuple[Traversable, bool]]:
    """The library's files by name, and whether each is only a piece of recipes."""
    folder = resources.files("botvision.recipes") / "library"
    return {Path(file.name).stem: (file, is_piece) for file, is_piece in _files(folder)}


def _files(folder: Traversable) -> Iterator[tuple[Traversable, bool]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry)
        elif entry.name.endswith(_SUFFIXES):
            yield entry, folder.name == _PIECES
