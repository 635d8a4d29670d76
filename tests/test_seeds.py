"""Derived seeds: the same for the same numbers, another for any other numbers."""

import itertools

import pytest

from botvision.seeds import derived_seed


def test_the_same_numbers_give_the_same_seed():
    assert derived_seed(3, 1, 4) == derived_seed(3, 1, 4)


def test_a_seed_fits_a_signed_64_bit_integer():
    seeds = [derived_seed(0, number) for number in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Of the 63 bits the highest is used, too.
    assert any(seed >= 2**62 for seed in seeds)


def test_any_number_and_any_order_makes_another_seed():
    keys = list(itertools.product(range(12), repeat=3))
    assert len({derived_seed(*key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("one", "other"),
    [((1,), (1, 0)), ((1, 2), (1, 2, 0)), ((2**32,), (0, 1)), ((2**32, 5), (0, 1, 5))],
    ids=str,
)
def test_numbers_do_not_run_into_each_other(one, other):
    # numpy's SeedSequence pads with zeros and joins the 32-bit words of its numbers.
    assert derived_seed(*one) != derived_seed(*other)


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match="negative"):
        derived_seed(0, -1)
