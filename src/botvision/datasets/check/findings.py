"""What is found wrong in a data set: one record each, and the sentence that people read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from botvision.errors import BotvisionError

Severity = Literal["error", "skipped", "clipped", "counted"]
"""Training refuses an error, leaves out what is skipped, and takes the others."""

_LONGEST_VALUE = 120  # characters of a value that a finding quotes


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        severity: What training makes of it.
        file: Path of the file.
        where: The part of the file, such as "annotation 72"; empty for the whole.
        id: Of the record, if it has one.
        field: Of the record.
        value: That the field has, as text.
        expected: What it should have.
        said: In place of expected and value, where another sentence says it better.
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
        """One line: what, where, expected, got."""
        sentence = self.said or f"expected {self.expected}, got {self.value}"
        # What is said of a whole file needs no field.
        field = "" if self.said and not self.where else self.field
        text = ": ".join(part for part in (self.file, self.where, field, sentence) if part)
        # Ids and names of the user's file may hold line breaks.
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


Report = Callable[[Finding], None]


def raise_errors(finding: Finding) -> None:
    """A report that stops at the first error and does not mind the rest.

    Raises:
        BotvisionError: The finding, if it is an error.
    """
    if finding.severity == "error":
        raise BotvisionError(finding.message)


def shown(value: Any) -> str:
    """A value as findings quote it: on one line, and not endless."""
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
    """A finding about a field of an annotation."""
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


def unknown_image(path: Path, number: int | str, image_id: int | str) -> Finding:
    """An annotation of an image that the file does not have."""
    return about_annotation(
        "skipped", path, number, "image_id", expected="one of the file's images", value=image_id
    )


def without_area(
    path: Path, number: int | str, box: Sequence[float], size: Sequence[float]
) -> Finding:
    """A box that has no area inside its image, whose size is (width, height)."""
    expected = f"width and height above 0 in the image of {size[0]:g} x {size[1]:g}"
    return about_annotation("skipped", path, number, "bbox", expected=expected, value=list(box))


def not_drawable(path: Path, number: int | str, polygons: Any) -> Finding:
    """Polygons of which one has no area by its form."""
    expected = "polygons of at least 3 points, x and y each"
    return about_annotation(
        "skipped", path, number, "segmentation", expected=expected, value=polygons
    )


def cut_off(path: Path, number: int | str, box: Sequence[float], size: Sequence[float]) -> Finding:
    """A box that reached out of its image, whose size is (width, height)."""
    expected = f"a box inside the image of {size[0]:g} x {size[1]:g}"
    return about_annotation("clipped", path, number, "bbox", expected=expected, value=list(box))


def corners_for_sides(path: Path, overflowing: int, boxes: int) -> Finding:
    """Boxes that look like x1 y1 x2 y2."""
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
