"""What people point a prediction at."""

import io

import pytest

from botvision.errors import BotvisionError
from botvision.predict.sources import find_sources


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for name in ("a.jpg", "b c.png", "sub/d.JPG", "sub/deep/e.jpg", "notes.md", "[1].jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def names(*sources):
    return [path.name for path in find_sources(sources).paths]


def test_files_and_folders(photos):
    assert names("photos") == ["[1].jpg", "a.jpg", "b c.png", "d.JPG", "e.jpg"]
    assert names("photos/a.jpg") == ["a.jpg"]
    assert names("photos/sub", "photos/a.jpg") == ["d.JPG", "e.jpg", "a.jpg"]
    assert find_sources([photos]).left_out == {".md (no image format)": 1}


def test_each_once(photos):
    assert names("photos/a.jpg", "photos/*.jpg", "photos/a.jpg") == ["a.jpg", "[1].jpg"]


def test_patterns(photos):
    assert names("photos/*.jpg") == ["[1].jpg", "a.jpg"]
    assert names("photos/**/*.jpg") == ["[1].jpg", "a.jpg", "e.jpg"]
    assert names(str(photos / "b*")) == ["b c.png"]
    assert names("photos/[1].jpg") == ["[1].jpg"]  # a file first of all
    with pytest.raises(BotvisionError, match=r"photos/\*\.gif: no file matches"):
        names("photos/*.gif")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists(photos, encoding):
    (photos / "list.txt").write_text("a.jpg\n\n  sub \r\nphotos/b c.png\n", encoding=encoding)
    assert names("photos/list.txt") == ["a.jpg", "d.JPG", "e.jpg", "b c.png"]
    assert names("photos/b c.png", "photos/list.txt")[:2] == ["b c.png", "a.jpg"]


def test_faults_of_lists(photos):
    listed = photos / "list.txt"
    listed.write_text("a.jpg\nx.jpg\ny.jpg\n")
    with pytest.raises(BotvisionError, match=r"list\.txt, line 2: x\.jpg: no such.*\(and 1 more\)"):
        names(listed)
    listed.write_text("\n \n")
    with pytest.raises(BotvisionError, match=r"list\.txt: expected paths, one per line, got none"):
        names(listed)
    listed.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BotvisionError, match=r"list\.txt: expected a list of paths.*UTF-8"):
        names(listed)


def test_standard_input(photos, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("photos/a.jpg\nphotos/sub\n"))
    assert names("-") == ["a.jpg", "d.JPG", "e.jpg"]


def test_what_is_missing(photos):
    with pytest.raises(BotvisionError, match=r"photoz: no such file or folder.*photos"):
        names("photoz")
    with pytest.raises(BotvisionError, match="expected an image, a folder, a pattern or a list"):
        find_sources([])
    with pytest.raises(BotvisionError, match="addresses are not fetched"):
        names("https://example.org/a.jpg")
