"""Seeds derived from what a random draw is for, so that no generator's state need be kept."""

import numpy as np


def derived_seed(*numbers: int) -> int:
    """A 63-bit seed that differs with any of the numbers.

    Args:
        numbers: Non-negative: the run's seed, then an epoch, a step, an index.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
