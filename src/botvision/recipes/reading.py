"""Recipes by name or file, with overrides, checked."""

from collections.abc import Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from botvision.errors import BotvisionError, nearest
from botvision.recipes.composition import composed
from botvision.recipes.composition import recipe_names as recipe_names
from botvision.recipes.schema import Recipe, recipe_class, task_of
from botvision.tasks.task import task_names


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
    task = task_of(content)
    try:
        schema = recipe_class(task)
    except BotvisionError as error:
        raise BotvisionError(f"{source}: {error}") from error
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        keys, known = _located(schema, first["loc"])
        where = ".".join(keys)
        if first["type"] == "union_tag_invalid":
            key, got = first["ctx"]["discriminator"].strip("'"), first["ctx"]["tag"]
            tags = [each.strip(" '") for each in first["ctx"]["expected_tags"].split(",")]
            raise BotvisionError(
                f"{source}: {where}.{key}: expected one of {', '.join(tags)}, got {got!r}"
                f"{nearest(got, tags)}"
            ) from error
        if first["type"] == "extra_forbidden":
            near = (
                nearest(keys[-1], known)
                or _other_task(keys, task)
                or f"; known are {', '.join(known)}"
            )
            raise BotvisionError(f"{source}: {where}: no such key{near}") from error
        got = "" if first["type"] == "missing" else f", got {first['input']!r}"
        raise BotvisionError(f"{source}: {where}: {first['msg']}{got}") from error


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise BotvisionError(f"override {override}: expected key.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise BotvisionError(f"override {override}: {parent} is a value, not a group of keys")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BotvisionError(f"override {override}: the value is not YAML") from error


def _located(schema: type[BaseModel], location: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """Return the keys that an error's location names, and the keys known beside the last one.

    The location of a key of a union also names the member by its tag, which is no key.
    """
    members, keys = [schema], []
    known: list[str] = []
    for part in location:
        if len(members) > 1:
            members = [each for each in members if _has_tag(each, part)]
            continue
        keys.append(str(part))
        fields = members[0].model_fields if members else {}
        known = list(fields)
        members = _models_in(fields[str(part)].annotation) if str(part) in fields else []
    return keys, known


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _has_tag(model: type[BaseModel], tag: int | str) -> bool:
    return any(tag in get_args(field.annotation) for field in model.model_fields.values())


def _other_task(keys: list[str], task: str) -> str:
    """Return a hint at another task whose recipes have a key."""
    for name in task_names():
        if name == task:
            continue
        members: list[type[BaseModel]] = [recipe_class(name)]
        for key in keys[:-1]:
            fields = [each.model_fields[key] for each in members if key in each.model_fields]
            members = [model for field in fields for model in _models_in(field.annotation)]
        if any(keys[-1] in model.model_fields for model in members):
            return f" of task {task!r}; task {name!r} has it"
    return ""
