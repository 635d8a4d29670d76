"""Paths in annotation files: every way to write one finds its file, and none leads outside."""

import unicodedata
from pathlib import Path

import pytest

from botvision.images.written_paths import find_written, similar_name


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "set"
    (root / "images" / "train").mkdir(parents=True)
    (root / "images" / "train" / "a.png").touch()
    (root / "b.png").touch()
    (tmp_path / "outside.png").touch()
    return root


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("images/train/a.png", "images/train/a.png"),
        ("./images/train/a.png", "images/train/a.png"),
        (r"images\train\a.png", "images/train/a.png"),
        (r".\images\train\a.png", "images/train/a.png"),
        ("/content/drive/My Drive/set/images/train/a.png", "images/train/a.png"),
        (r"C:\Users\me\set\images\train\a.png", "images/train/a.png"),
        ("C:/Users/me/set/images/train", "images/train"),
        (r"\\server\share\set\images\train\a.png", "images/train/a.png"),
        ("/elsewhere/b.png", "b.png"),
        ("images/train/none.png", None),
        ("train/a.png", None),
        ("/elsewhere/a.png", None),
        ("../outside.png", None),
        (r"..\outside.png", None),
        ("/elsewhere/../outside.png", None),
        ("a\0b", None),
        ("x" * 5000, None),
        ("", ""),
    ],
)
def test_written_paths(root, written, found):
    path = find_written(written, root, root)
    assert path == (None if found is None else root / found)


def test_a_file_outside_is_not_found_by_its_own_path(root, tmp_path):
    (root / "outside.png").touch()  # another one of the same name
    assert find_written(str(tmp_path / "outside.png"), root, root) is None
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    assert find_written("link.png", root, root) is None


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_forms(root, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (root / unicodedata.normalize(form, "Übung é.png")).touch()
    path = find_written(unicodedata.normalize(other, "Übung é.png"), root, root)
    assert path == root / unicodedata.normalize(form, "Übung é.png")


def test_a_name_with_a_backslash_of_its_own(root):
    (root / r"images\train\a.png").touch()
    assert find_written(r"images\train\a.png", root, root) == root / r"images\train\a.png"


def test_similar_names(root):
    assert similar_name(root / "B.PNG") == "b.png"
    assert similar_name(root / "b.jpg") == "b.png"
    assert similar_name(root / "c.png") is None
    assert similar_name(Path(root, "none", "a.png")) is None
