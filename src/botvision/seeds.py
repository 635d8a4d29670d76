"""Seeds derived from what a random draw is for, so that no generator's state need be kept."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*numbers: int) -> int:
    """Return a 63-bit seed that differs with any of the numbers.

    Args:
        numbers: Non-negative integers, such as the seed of the run, an epoch and an index.
    """
    if min(numbers) < 0:
        raise ValueError(f"numbers: expected non-negative integers, got {numbers}")
    # numpy pads with zeros and joins 32-bit words: without the length and the fixed two words a
    # number, (1, 2) and (1, 2, 0) would share a seed.
    words = [word for number in numbers for word in divmod(number, 2**32)]
    state = np.random.SeedSequence([len(numbers), *words]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch in the block, and restore them after it.

    Args:
        seed: Seed as returned by ``derived_seed``.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - timm's generator
    try:
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed the accelerators as well, which nobody restores.
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
