"""Errors a user can cause, and the wording they share."""

import difflib
from collections.abc import Iterable


class BotvisionError(Exception):
    """One line: what, where, expected, got, what to do. The command exits with status 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint "; did you mean ...?" for a misspelt word, or nothing when nothing is near."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""
