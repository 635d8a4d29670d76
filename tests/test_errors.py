"""The hint for a misspelt word."""

import pytest

from botvision.errors import BotvisionError, nearest

KEYS = ["epochs", "batch_size", "learning_rate", "weight_decay", "warmup_steps", "steps"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
        ("batch-size", "batch_size"),
        ("lerning_rate", "learning_rate"),
        ("weight_decay", "weight_decay"),
    ],
)
def test_the_nearest_word_is_named(word, expected):
    assert nearest(word, KEYS).startswith(f"; did you mean {expected}")
    assert nearest(word, KEYS).endswith("?")


@pytest.mark.parametrize("word", ["", "xyzzy", "color"])
def test_nothing_near_gives_no_hint(word):
    assert nearest(word, KEYS) == ""


def test_nothing_known():
    assert nearest("epochs", []) == ""


def test_several_near_words_best_first():
    assert nearest("step", ["stop", "steps"]) == "; did you mean steps or stop?"


def test_at_most_three():
    assert nearest("key", ["key1", "key2", "key3", "key4"]).count(" or ") == 2


def test_any_iterable():
    assert nearest("epoch", iter(KEYS)) == nearest("epoch", KEYS)
    assert nearest("epoch", dict.fromkeys(KEYS)) == nearest("epoch", KEYS)


def test_the_error_is_its_message():
    error = BotvisionError("a.json: no such file")
    assert str(error) == "a.json: no such file"
    assert isinstance(error, ValueError)
