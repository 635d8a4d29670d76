"""Recipes by name or file, with overrides, checked."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from botvision.detection.settings import DETECTORS
from botvision.errors import BotvisionError, nearest
from botvision.recipes.schema import Recipe


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    folder = resources.files("botvision.recipes") / "library"
    return sorted(Path(entry.name).stem for entry in folder.iterdir())


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check it.

    Args:
        name: Name of a recipe of ours, or path of a YAML file.
        overrides: "key.key=value" each, the value in YAML.

    Raises:
        BotvisionError: If there is no such recipe, or a key or value is wrong; an unknown key
            is answered with the nearest valid one.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise BotvisionError(f"{path}: no such recipe file")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BotvisionError(f"{path}: not text in UTF-8 ({error})") from error
    elif name in recipe_names():
        text = (resources.files("botvision.recipes") / "library" / f"{name}.yaml").read_text()
    else:
        known = recipe_names()
        raise BotvisionError(
            f"recipe {name!r} is unknown{nearest(name, known) or '.'} The recipes are "
            f"{', '.join(known)}; a file ends in .yaml"
        )
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BotvisionError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BotvisionError(f"{name}: expected keys and values, got {type(content).__name__}")
    for override in overrides:
        _override(content, override)
    return check_recipe(content, source=name)


def check_recipe(content: dict[str, Any], source: str) -> Recipe:
    """Check a recipe's content.

    Args:
        content: As YAML gives it.
        source: Where it comes from, for the error.

    Raises:
        BotvisionError: Naming the first wrong key, what was expected and what was found.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # The place of a detector's key names the detector as well, which is no key.
        where = ".".join(str(part) for part in first["loc"] if part not in DETECTORS)
        if first["type"] == "union_tag_invalid":
            known = list(DETECTORS)
            got = first["ctx"]["tag"]
            raise BotvisionError(
                f"{source}: {where}.detector: expected one of {', '.join(known)}, got {got!r}"
                f"{nearest(got, known)}"
            ) from error
        if first["type"] == "extra_forbidden":
            known = _fields(first["loc"][:-1])
            near = nearest(str(first["loc"][-1]), known) or f"; known are {', '.join(known)}"
            raise BotvisionError(f"{source}: {where}: no such key{near}") from error
        got = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise BotvisionError(f"{source}: {where}: {first['msg']}{got}") from error


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise BotvisionError(f"--set {override}: expected key.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise BotvisionError(f"--set {override}: {parent} is a value, not a group of keys")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BotvisionError(f"--set {override}: the value is not YAML") from error


def _fields(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location:
        inner = DETECTORS.get(str(part)) or model.model_fields[str(part)].annotation
        if isinstance(inner, type):  # else a choice of detectors, and the next part says which
            assert issubclass(inner, BaseModel)
            model = inner
    return list(model.model_fields)
