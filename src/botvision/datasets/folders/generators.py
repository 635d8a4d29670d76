"""The generators that timm draws from: Python's, numpy's and torch's."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def all_seeded(seed: int) -> Iterator[None]:
    """Draws inside the block follow from the seed, and those after it go on as if it were not.

    Args:
        seed: As ``derived_seed`` makes it.
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
