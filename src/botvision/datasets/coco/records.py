"""A COCO file's lists, and the records in them whose fields are of the right types."""

import json
import sys
from pathlib import Path
from typing import Any

from botvision.datasets.check.findings import Finding, Report, shown
from botvision.datasets.coco.store import Record


def read_json(path: Path, report: Report) -> dict[str, Any] | None:
    """A file's JSON object; None after reporting that there is none."""
    said = ""
    content: Any = None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        said = f"not JSON at offset {error.pos}: {error.msg}"
    except (OSError, ValueError, RecursionError) as error:  # also numbers of thousands of digits
        said = f"cannot be read ({error})"
    if said or not isinstance(content, dict):
        value = "" if said else type(content).__name__
        report(Finding("error", str(path), value=value, expected="a JSON object", said=said))
        return None
    return content


FIELDS: dict[str, dict[str, Any]] = {
    "images": {"id": int | str, "file_name": str, "width": int | float, "height": int | float},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int | str, "image_id": int | str, "category_id": object, "bbox": object},
}


def record_list(
    path: Path, content: dict[str, Any] | None, key: str, report: Report
) -> list[Any] | None:
    """A list of the file; None after reporting that there is none."""
    records = (content or {}).get(key)
    if isinstance(records, list):
        return records
    got = type(records).__name__
    report(Finding("error", str(path), field=key, value=got, expected="a list"))
    return None


def sound_records(
    path: Path, content: dict[str, list[Any]], key: str, report: Report
) -> list[Record]:
    """The records of a list whose fields are of the right types and whose ids are their own."""
    seen: set[Any] = set()
    sound = []
    for number, record in enumerate(content[key]):
        finding = _record_fault(path, f"{key}[{number}]", record, FIELDS[key], seen)
        if finding is None:
            seen.add(record["id"])
            sound.append(record)
        else:
            report(finding)
    return sound


def _record_fault(
    path: Path, where: str, record: Any, fields: dict[str, Any], seen: set[Any]
) -> Finding | None:
    missing = fields.keys() - record.keys() if isinstance(record, dict) else fields.keys()
    if missing:
        names = ", ".join(sorted(missing))
        said = f"{names} missing"
        number = record.get("id") if isinstance(record, dict) else None
        number = number if is_a(number, int | str) else None
        return Finding(
            "error", str(path), where, id=number, value=shown(record), expected=names, said=said
        )
    where = f"{where} with id {shown(record['id'])}"
    known = record["id"] if is_a(record["id"], int | str) else None
    for name, kind in fields.items():
        value = record[name]
        side = name in ("width", "height")
        if not is_a(value, kind) or (side and not (is_finite(value) and value > 0)):
            wanted = "a number above 0" if side else getattr(kind, "__name__", str(kind))
            return Finding("error", str(path), where, known, name, shown(value), wanted)
    if record["id"] in seen:
        part, _, said = where.partition("[")[0], "", f"id {shown(known)} occurs twice"
        return Finding("error", str(path), part, known, "", shown(known), "an id of its own", said)
    return None


def known_ids(records: list[Any]) -> set[Any]:
    """The ids of all records that have one, sound or not."""
    return {
        record["id"]
        for record in records
        if isinstance(record, dict) and is_plain(record.get("id"))
    }


def is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; true and false are no numbers."""
    return isinstance(value, kind) and (kind is object or not isinstance(value, bool))


def is_plain(value: Any) -> bool:
    """Whether a value may be looked for among ids."""
    return isinstance(value, int | float | str)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that floating point can hold."""
    # Also refuses integers beyond floating point, which math.isfinite cannot take.
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max
