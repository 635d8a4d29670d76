"""Findings of the data check: one record per fault, and the sentence that people read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from botvision.errors import BotvisionError

Severity = Literal["error", "skipped", "clipped", "counted"]
"""Training refuses an error, leaves out what is skipped, and takes the others."""

_LONGEST_VALUE = 120  # characters of a value that a finding quotes


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Attributes:
        severity: How training treats it.
        file: Path of the file.
        where: Part of the file, such as "annotation 72"; empty for the whole.
        id: Id of the record, if it has one.
        field: Name of the field.
        value: Value of the field, as text.
        expected: Expected value, as text.
        said: Sentence in place of expected and value, where another one says it better.
    """

    severity: Severity
    file: str
    where: str = ""
    id: int | str | None = None
    field: str = ""
    value: str = ""
    expected: str = ""
    said: str = ""

    @property
    def message(self) -> str:
        """One line: file, part, field, expected, got."""
        sentence = self.said or f"expected {self.expected}, got {self.value}"
        # A sentence about a whole file needs no field.
        field = "" if self.said and not self.where else self.field
        text = ": ".join(part for part in (self.file, self.where, field, sentence) if part)
        # Ids and names of the user's file may hold line breaks.
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


Report = Callable[[Finding], None]


def raise_errors(finding: Finding) -> None:
    """Stop at the first error and ignore all other findings.

    Raises:
        BotvisionError: The finding, if it is an error.
    """
    if finding.severity == "error":
        raise BotvisionError(finding.message)


def shown(value: Any) -> str:
    """Return a value as findings quote it: on one line, and not endless."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def about_annotation(
    severity: Severity,
    path: Path,
    number: int | str,
    field: str,
    *,
    expected: str,
    value: Any,
    said: str = "",
) -> Finding:
    """Return a finding about a field of an annotation."""
    return Finding(
        severity,
        str(path),
        f"annotation {number}",
        id=number,
        field=field,
        value=shown(value),
        expected=expected,
        said=said,
    )


def corners_for_sides(path: Path, overflowing: int, boxes: int) -> Finding:
    """Return an error about boxes that look like x1 y1 x2 y2."""
    return Finding(
        "error",
        str(path),
        "annotations",
        field="bbox",
        value=f"{overflowing} of {boxes} boxes that reach out of their images",
        expected="[x, y, width, height]",
        said=(
            f"expected [x, y, width, height], got {overflowing} of {boxes} boxes that reach out "
            "of their images but fit as corners: they look like [x1, y1, x2, y2]; write x2 - x1 "
            "for the width and y2 - y1 for the height"
        ),
    )


def fractions_for_pixels(path: Path, fractions: int, boxes: int) -> Finding:
    """Return an error about boxes that look like fractions of the image's sides."""
    return Finding(
        "error",
        str(path),
        "annotations",
        field="bbox",
        value=f"{fractions} of {boxes} boxes within one pixel",
        expected="[x, y, width, height] in pixels",
        said=(
            f"expected [x, y, width, height] in pixels, got {fractions} of {boxes} boxes with all "
            "numbers from 0 to 1: they look like fractions; multiply them by the image's sides"
        ),
    )
