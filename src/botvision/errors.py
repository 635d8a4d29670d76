"""Errors a user can cause, and the wording they share."""

import difflib
from collections.abc import Iterable


class BotvisionError(ValueError):
    """An error that a user can mend: what, where, expected, got and what to do, in one line.

    The command prints it and exits with status 2.
    """


class OutOfMemoryError(BotvisionError, MemoryError):
    """Memory did not suffice: no input is at fault, so none is left out or replaced for it."""


class Interrupted(Exception):  # noqa: N818 - it is no error
    """A run was asked to stop, and saved its state first.

    Args:
        message: What was saved and how to go on.
        signal: The signal that asked; the command exits with status 128 + signal, as shells do.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint "; did you mean ...?" for a misspelt word, or nothing when nothing is near."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""
