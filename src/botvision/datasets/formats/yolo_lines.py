"""Lines of YOLO's label files, and what trackers and pose estimators add to them."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from botvision.datasets.coco.writing import box_annotation, polygon_area
from botvision.datasets.formats.faults import Faults
from botvision.datasets.formats.labeled_sets import (
    ROUNDING,
    LabeledSet,
    polygon_corners,
    read_text,
)
from botvision.datasets.layouts import yolo_fields
from botvision.errors import BotvisionError

_TOLERANCE = 0.01  # fraction of a side that coordinates may reach out of the image
_FEW_LINES = 3  # fewer lines prove no form
_HELD = 0.98  # fraction of pose lines whose keypoints are all in their box


@dataclass(frozen=True)
class LineForm:
    """Form of the lines of a whole data set.

    Attributes:
        keypoints: Number of fields after the box that are keypoints.
        keypoints_said: Whether the folder itself says so, so that other lines are faults.
        confidence: Whether a line may end with a confidence, or a confidence and a track id.
        notes: Lines on what was recognized.
    """

    keypoints: int = 0
    keypoints_said: bool = False
    confidence: bool = False
    notes: tuple[str, ...] = ()


def find_form(paths: Iterable[Path], keypoint_fields: int | None) -> LineForm:
    """Return the form that all lines of a data set have.

    A line of more than 5 fields is an outline, or a box with keypoints, a confidence or a track id.
    Nothing in the line says which. Boxes with keypoints are told by what holds in every line of the
    set and for outlines by chance alone: all have one number of fields, and the first four numbers
    are center and sides of a box inside the image that holds all further points (pairs, or pairs
    and a score); of points with a visibility, each third number is 0, 1 or 2. Confidence and track
    id are told by a last field that is a whole number, a confidence alone by an odd number of
    coordinates. A whole number twice in a file is no track id, but may be an angle: a fault.

    Args:
        paths: Label files.
        keypoint_fields: Number of keypoint fields, if the folder says it; 0 for none.

    Raises:
        BotvisionError: If lines may be either, so that a guess may be wrong.
    """
    if keypoint_fields is not None:
        return LineForm(keypoint_fields, keypoints_said=keypoint_fields > 0)
    seen, commas = _Seen(), 0
    for path in paths:
        try:
            text = read_text(path)
        except BotvisionError:
            continue  # a fault of its image, which is collected when that is read
        seen.file_ids.clear()
        for number, line in enumerate(text.split("\n"), start=1):
            commas += "," in line
            seen.add(yolo_fields(line), f"{path}: line {number}")
    form = seen.visible_keypoints() or seen.confidences() or seen.keypoints() or LineForm()
    if not commas:
        return form
    note = f"{commas:,} lines have commas, which are read as separators or decimal points"
    return replace(form, notes=(*form.notes, note))


@dataclass
class _Seen:
    """What was seen in the lines of a data set.

    Attributes:
        lengths: Number of lines by their number of fields.
        first: The first line of more than 5 fields.
        box_first: Number of lines of more than 5 fields that begin with a box inside the image.
        held: Number of those whose box holds all further points, if points are of 2 or 3 numbers.
        pointed: Number of those whose second point lies far from all others, as few outlines' do.
        visibilities: Number of those whose each third further number is a visibility.
        scored: Number of lines of more than 6 fields that end with a confidence, alone or with a
            track id.
        tracked: Number of those with a track id.
        ids: Number of those whose track id is above 1.
        confident: Number of lines of 6 fields that are a box and a number from 0 to 1 or whole.
        file_ids: Whole last numbers above 1 of the present file.
        repeated: Number of lines that repeat such a number of their file, as no track id does.
        rectangles: Number of lines of 9 fields whose four points are a rectangle's, in any turn.
    """

    lengths: Counter[int] = field(default_factory=Counter)
    first: str = ""
    box_first: int = 0
    held: Counter[int] = field(default_factory=Counter)
    pointed: Counter[int] = field(default_factory=Counter)
    visibilities: int = 0
    scored: int = 0
    tracked: int = 0
    ids: int = 0
    confident: int = 0
    file_ids: set[int] = field(default_factory=set)
    repeated: int = 0
    rectangles: int = 0

    def add(self, fields: Sequence[str], where: str) -> None:
        """Look at a line; lines that are no numbers are faults, which are found later."""
        try:
            numbers = [float(each) for each in fields[1:]]
        except ValueError:
            return
        if not fields or not all(map(math.isfinite, numbers)):
            return
        self.lengths[len(fields)] += 1
        if len(fields) <= 5:
            return
        self.first = self.first or where
        whole = re.fullmatch(r"\d+", fields[-1]) is not None
        if whole and (number := int(fields[-1])) > 1:
            self.repeated += int(number in self.file_ids)
            self.file_ids.add(number)
        if len(fields) == 9:
            sides = (numbers[i] + numbers[4 + i] - numbers[2 + i] - numbers[6 + i] for i in (0, 1))
            self.rectangles += int(max(map(abs, sides)) <= _TOLERANCE)
        if len(fields) == 6:
            self.confident += int(whole or 0 <= numbers[-1] <= 1)
        elif len(fields) % 2 == 0:
            self.scored += int(0 <= numbers[-1] <= 1)
        elif whole and 0 <= numbers[-2] <= 1:
            self.scored += 1
            self.tracked += 1
            self.ids += int(numbers[-1] > 1)
        box, rest = numbers[:4], numbers[4:]
        if not _is_inside(box):
            return
        self.box_first += 1
        self.visibilities += int(len(rest) % 3 == 0 and all(n in (0, 1, 2) for n in rest[2::3]))
        for group in (2, 3):
            if len(rest) % group == 0:
                # A point of zeros stands for one that is not in the image.
                points = list(filter(any, zip(rest[::group], rest[1::group], strict=True)))
                self.held[group] += int(_holds(box, points))
                self.pointed[group] += int(_is_pointed(box, points))

    @property
    def longer(self) -> int:
        """Number of lines of more than 5 fields."""
        return sum(count for length, count in self.lengths.items() if length > 5)

    def confidences(self) -> LineForm | None:
        """Return the form of lines with confidences and track ids, if all have them."""
        six = self.lengths[6]
        rest = self.longer - six
        if not self.longer or self.repeated or self.confident < six or self.scored < rest:
            return None
        boxes = set(self.lengths) <= {5, 6, 7}
        outlines = {length for length in self.lengths if length > 7}
        if boxes and rest and not self.ids:
            # Outlines may all end at an edge of the image, in a whole 0 or 1.
            if self.box_first < self.longer:
                return None
            if rest < _FEW_LINES:
                raise BotvisionError(
                    f"{self.first}: 7 fields: an outline of 3 points, or a box with confidence and "
                    "track id? remove the last two fields, or say kpt_shape: [0, 2] in data.yaml "
                    "for outlines"
                )
        elif not boxes and not self.ids:
            # Lines of one length may be of keypoints; a few may have lost a number.
            if self.tracked or len(outlines) < 2 or rest < _FEW_LINES:
                return None
        elif not rest and six < _FEW_LINES and six < self.lengths.total():
            return None
        what = "a box" if boxes else "an outline"
        note = (
            f"{self.longer:,} lines are {what} with a confidence or track id, which are left out, "
            f"such as {self.first}"
        )
        return LineForm(confidence=True, notes=(note,))

    def visible_keypoints(self) -> LineForm | None:
        """Return the form of lines with keypoints and visibilities, if all have them."""
        fields = self._keypoint_fields()
        if fields and self.visibilities == self.longer:
            return self._pose(fields, 3)
        return None

    def keypoints(self) -> LineForm | None:
        """Return the form of lines with keypoints, if all have them."""
        fields = self._keypoint_fields()
        if self.rectangles == self.longer:
            return None  # oriented boxes
        for group in (2, 3):
            # Of many lines, a keypoint or two may lie beside their box.
            lost = self.longer - self.held[group]
            if not fields or fields % group or lost > self.longer * (1 - _HELD):
                continue
            # Of outlines of few points, a box may hold all others, and one may lie apart, by
            # chance. An odd number of coordinates is no outline.
            lines, fraction = (_FEW_LINES, 0.2) if fields >= 8 else (10, 0.5)
            apart = fields % 2 or self.pointed[group] >= fraction * self.longer
            if self.longer >= lines and apart:
                return self._pose(fields, group)
            if fields % 2 == 0:
                raise BotvisionError(
                    f"{self.first}: {fields + 5} fields: an outline of {fields // 2 + 2} points, "
                    f"or a box with keypoints? say kpt_shape: [{fields // group}, {group}] in "
                    "data.yaml for keypoints, or kpt_shape: [0, 2] for outlines"
                )
        return None

    def _keypoint_fields(self) -> int:
        """Number of fields after a box that all longer lines begin with; 0 if it is not so."""
        lengths = [length for length in self.lengths if length > 5]
        return lengths[0] - 5 if len(lengths) == 1 and self.box_first == self.longer else 0

    def _pose(self, fields: int, group: int) -> LineForm:
        note = (
            f"{self.longer:,} lines are a box with keypoints ({fields // group} points x {group}), "
            f"which are left out, such as {self.first}: in every line, the first four numbers are "
            "a box that goes with them"
        )
        return LineForm(fields, notes=(note,))


def _is_inside(box: Sequence[float]) -> bool:
    x, y, width, height = box
    return (
        width > 0
        and height > 0
        and min(x - width / 2, y - height / 2) >= -_TOLERANCE
        and max(x + width / 2, y + height / 2) <= 1 + _TOLERANCE
    )


def _holds(box: Sequence[float], points: Sequence[tuple[float, float]]) -> bool:
    x, y, width, height = box
    return all(
        abs(px - x) <= width / 2 + _TOLERANCE and abs(py - y) <= height / 2 + _TOLERANCE
        for px, py in points
    )


def _is_pointed(box: Sequence[float], points: Sequence[tuple[float, float]]) -> bool:
    """Return whether the third and fourth number, as a point, are far from the other points.

    Far is more than half the extent of the others, the first two numbers among them.
    """
    for axis in (0, 1):
        others = [box[axis], *(point[axis] for point in points)]
        margin = (max(others) - min(others)) / 2 + _TOLERANCE
        if not min(others) - margin <= box[2 + axis] <= max(others) + margin:
            return True
    return False


def read_lines(
    result: LabeledSet, path: Path, size: tuple[int, int], names: Mapping[int, str], form: LineForm
) -> list[dict[str, Any]]:
    """Return the records of a label file; none if there is no such file.

    Raises:
        BotvisionError: Naming all faulty lines.
    """
    faults = Faults()
    annotations = []
    text = read_text(path) if path.exists() else ""
    for number, line in enumerate(text.split("\n"), start=1):
        if fields := yolo_fields(line):
            with faults.collecting():
                where = f"{path}: line {number}"
                category, numbers = _numbers(where, fields, names, form)
                annotation = _annotation(result, category, numbers, size)
                if annotation:
                    annotations.append(annotation)
    faults.raise_collected(str(path))
    return annotations


def _numbers(
    where: str, fields: list[str], names: Mapping[int, str], form: LineForm
) -> tuple[int, list[float]]:
    """Return the class and the numbers of a box or outline."""
    wanted = "a class and 4 numbers of a box or at least 3 points"
    got = len(fields)
    if form.confidence and got > 5:
        fields = fields[:5] if got <= 7 else fields[: -1 if got % 2 == 0 else -2]
    elif form.keypoints and got == 5 + form.keypoints:
        fields = fields[:5]
    elif form.keypoints_said and got != 5:
        wanted = f"a class, a box and {form.keypoints} numbers of keypoints as kpt_shape says"
        fields = []
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        raise BotvisionError(f"{where}: expected {wanted}, got {got} fields")
    try:
        category, *numbers = (float(value) for value in fields)
    except ValueError as error:
        raise BotvisionError(f"{where}: expected numbers, got {' '.join(fields):.60}") from error
    if category not in names:
        indices = f"{min(names)} to {max(names)}"
        raise BotvisionError(f"{where}: class: expected {indices}, got {fields[0]}")
    for value, text in zip(numbers, fields[1:], strict=True):
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
            raise BotvisionError(
                f"{where}: expected fractions of the image's sides from 0 to 1, got {text}"
            )
    return int(category), numbers


def _annotation(
    result: LabeledSet, category: int, numbers: list[float], size: tuple[int, int]
) -> dict[str, Any] | None:
    width, height = size
    if len(numbers) == 4:
        x, y, w, h = numbers
        corners = ((x - w / 2) * width, (y - h / 2) * height)
        box = result.box((*corners, (x + w / 2) * width, (y + h / 2) * height), size)
        return box_annotation(box, category) if box else None
    cut = [min(max(value, 0.0), 1.0) for value in numbers]
    polygon = [value * size[index % 2] for index, value in enumerate(cut)]
    box = result.box(polygon_corners([polygon]), size)
    if not box:
        return None
    over = max(abs(value - kept) for value, kept in zip(numbers, cut, strict=True))
    result.clipped += int(over > ROUNDING)
    return box_annotation(box, category, area=polygon_area([polygon]), segmentation=[polygon])
