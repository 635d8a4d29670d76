"""Classes of annotation files: a class is its name, and its id is each file's own."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from botvision.datasets.check.findings import Finding, shown
from botvision.datasets.coco.store import Category
from botvision.errors import BotvisionError

_MOST_NAMED = 5


def same_name_faults(path: Path, categories: Sequence[Category]) -> list[Finding]:
    """Return an error for each category that has the name of another one.

    Names that differ in spaces alone are the same; case may tell letters apart.

    Args:
        path: Annotation file.
        categories: Its categories.
    """
    first: dict[str, Category] = {}
    found = []
    for each in categories:
        other = first.setdefault(_spaced(each.name), each)
        if other is not each:
            said = (
                f"categories {other.id} and {each.id} are both called {shown(each.name)}; give "
                "each class a name of its own, or its annotations one category_id"
            )
            found.append(
                Finding("error", str(path), "", each.id, "categories", shown(each.name), "", said)
            )
    return found


def matched_classes(
    path: Path, categories: Sequence[Category], classes: Sequence[Category], whose: str
) -> list[Category]:
    """Return the categories of a file in the order of a model's classes, matched by name.

    Args:
        path: Annotation file, for messages.
        categories: Categories of the file, which may be a part of the classes.
        classes: Classes of a model, or of the file it is trained on, in the order of the labels.
        whose: Whose classes these are, for messages.

    Returns:
        A category for each class, with the id that the file gives it. One that the file does not
        have gets the class's own id, or one above all others if the file uses that for another.

    Raises:
        BotvisionError: If the file has a class that is none of these.
    """
    if list(categories) == list(classes):
        return list(categories)
    for fault in same_name_faults(path, categories):
        raise BotvisionError(fault.message)
    known = {each.name for each in classes}
    if unknown := [each.name for each in categories if each.name not in known]:
        raise BotvisionError(f"{path}: categories: {_unknown(unknown, known, whose)}")
    by_name = {each.name: each for each in categories}
    taken = {each.id for each in categories}
    found = []
    for each in classes:
        category = by_name.get(each.name)
        if category is None:
            free = each.id if each.id not in taken else max(taken) + 1
            category = Category(free, each.name)
            taken.add(free)
        found.append(category)
    return found


def _unknown(names: list[str], known: set[str], whose: str) -> str:
    alike = {_folded(each): each for each in sorted(known)}
    parts = []
    for name in names[:_MOST_NAMED]:
        other = alike.get(_folded(name))
        there = (
            f" ({shown(other)} there, which differs in case, spaces or Unicode form)"
            if other
            else ""
        )
        parts.append(shown(name) + there)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    listed = ", ".join(shown(each) for each in sorted(known)[:_MOST_NAMED])
    rest = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    return (
        f"expected classes of {whose}, {listed}{rest}, got {', '.join(parts)}{more}; give a class "
        "the same name everywhere"
    )


def _spaced(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())


def _folded(name: str) -> str:
    return _spaced(name.replace("_", " ").replace("-", " ")).casefold()
