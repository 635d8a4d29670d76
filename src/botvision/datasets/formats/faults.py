"""Faults of a data set, collected so that one run names all of them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from botvision.errors import BotvisionError, OutOfMemoryError

_LISTED = 20  # faults that a message lists


class SeveralFaultsError(BotvisionError):
    """Several faults, one a line.

    Args:
        title: Where they are.
        faults: Their messages.
    """

    def __init__(self, title: str, faults: list[str]) -> None:
        more = len(faults) - _LISTED
        super().__init__(
            "\n".join(
                [
                    f"{title}: {len(faults):,} faults:",
                    *(f"  {fault}" for fault in faults[:_LISTED]),
                    *([f"  and {more:,} more"] if more > 0 else []),
                ]
            )
        )
        self.faults = faults


@dataclass
class Faults:
    """Messages of errors, kept until all of them are known.

    Attributes:
        messages: One line per fault.
    """

    messages: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what the block raises as a ``BotvisionError``, and go on after the block."""
        try:
            yield
        except SeveralFaultsError as error:
            self.messages += error.faults
        except OutOfMemoryError:
            raise  # the data may be sound
        except BotvisionError as error:
            self.messages.append(str(error))

    def raise_collected(self, title: str) -> None:
        """Raise one error of all faults, if there are any.

        Args:
            title: Where they are, if they are several.
        """
        if len(self.messages) == 1:
            raise BotvisionError(self.messages[0])
        if self.messages:
            raise SeveralFaultsError(title, self.messages)
