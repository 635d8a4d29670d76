"""Seeds derived from what a random draw is for, so that no generator's state need be kept."""

import numpy as np


def derived_seed(*numbers: int) -> int:
    """A 63-bit seed that differs with any of the numbers.

    Args:
        numbers: Non-negative: the run's seed, then an epoch, a step, an index.
    """
    if min(numbers) < 0:
        raise ValueError(f"numbers: expected non-negative integers, got {numbers}")
    # numpy pads with zeros and joins 32-bit words: without the length and the fixed two words a
    # number, (1, 2) and (1, 2, 0) would share a seed.
    words = [word for number in numbers for word in divmod(number, 2**32)]
    state = np.random.SeedSequence([len(numbers), *words]).generate_state(1, np.uint64)
    return int(state[0] >> 1)
