"""Model cards."""

import pytest

from botvision.weights.model_card import without_folders


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/somewhere/data", "data"),
        ("--data=/somewhere/data", "--data=data"),
        ('data.folder="/somewhere/data"', "data.folder=data"),
        ("C:\\somewhere\\data", "data"),
        ("relative/data", "relative/data"),
        ("a=b", "a=b"),
        ({"a": ["/x/y", 1, None]}, {"a": ["y", 1, None]}),
        ('data.folder="hfds//home/ann/cats"', "data.folder=cats"),
        ("hfds/uoft-cs/cifar10", "hfds/uoft-cs/cifar10"),
        ("file:///home/ann/shards", "shards"),
        ("s3://bucket/shards", "s3://bucket/shards"),
    ],
)
def test_without_folders(value, expected):
    assert without_folders(value) == expected
