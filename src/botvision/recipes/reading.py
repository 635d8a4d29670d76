"""Recipes by name or file, with overrides, checked."""

from collections.abc import Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from botvision.errors import BotvisionError, nearest
from botvision.recipes.composition import composed
from botvision.recipes.composition import recipe_names as recipe_names
from botvision.recipes.schema import Recipe, recipe_class
from botvision.tasks.detection.settings import DETECTORS


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check it.

    Args:
        name: Name of a recipe of ours, or path of a YAML file.
        overrides: "key.key=value" each, the value in YAML.

    Raises:
        BotvisionError: If there is no such recipe, or a key or value is wrong; an unknown key
            is answered with the nearest valid one.
    """
    content = composed(name)
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
        return recipe_class(content).model_validate(content)
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
            known = _fields(recipe_class(content), first["loc"][:-1])
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


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that may stand at a place in a recipe."""
    for part in location:
        inner = DETECTORS.get(str(part)) or model.model_fields[str(part)].annotation
        # A choice is one of detectors, and the next part says which, or of a group and None.
        choices = [each for each in (inner, *get_args(inner)) if isinstance(each, type)]
        if choices and issubclass(choices[0], BaseModel):
            model = choices[0]
    return list(model.model_fields)
