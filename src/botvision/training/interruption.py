"""Ctrl-C and SIGTERM as requests that the loop answers between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Request:
    """Whether the run is asked to stop.

    Attributes:
        signal: The signal that asked, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def interruptible() -> Iterator[Request]:
    """Turn the first Ctrl-C or SIGTERM inside the block into a request; a second one stops at once.

    Has no effect outside the main thread, where signals cannot be handled.
    """
    request = Request()
    before: dict[int, object] = {}

    def ask(number: int, _frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.signal = number

    try:
        for each in _SIGNALS:
            before[each] = signal.signal(each, ask)
    except ValueError:  # not the main thread
        pass
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
