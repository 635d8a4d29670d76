"""The cache of large annotation files: found again, made anew, shared, and done without."""

import json
import os
import pickle
import threading
import time

import numpy as np
import pytest

from botvision.datasets.coco import cache as annotation_cache
from botvision.datasets.coco import file as coco
from botvision.datasets.coco.file import read_annotations
from botvision.errors import BotvisionError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The cache folder; files of any size are large."""
    monkeypatch.setattr(annotation_cache, "LARGE", 0)
    monkeypatch.setenv("BOTVISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def path(tmp_path):
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 30, "width": 40} for i in (4, 2)],
        "categories": [{"id": 7, "name": "cup"}],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": 7,
                "bbox": [i, 1, 5, 5],
                "segmentation": [[i, 1, i + 5.25, 1, i, 6]],
            }
            for i, image in enumerate([2, 4, 2, 5])
        ],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return path


def contents(annotations):
    return (
        list(annotations.images),
        annotations.categories,
        dict(annotations.instances),
        annotations.skipped,
    )


@pytest.fixture
def readings(monkeypatch):
    """A list that grows with every reading of an annotation file itself."""
    calls, read = [], coco.read_arrays

    def counted(path):
        calls.append(path)
        return read(path)

    monkeypatch.setattr(coco, "read_arrays", counted)
    return calls


@pytest.fixture
def plain(path, monkeypatch):
    """What the file holds, read without a cache."""
    with monkeypatch.context() as patched:
        patched.setattr(annotation_cache, "LARGE", 2**40)
        return contents(read_annotations(path))


def cache_file(folder):
    (file,) = folder.glob("*.safetensors")
    return file


def test_a_file_is_read_once(path, plain, readings, folder):
    for _ in range(3):
        assert contents(read_annotations(path)) == plain
    assert len(readings) == 1
    cache_file(folder)


def test_a_small_file_is_not_cached(path, readings, folder, monkeypatch):
    monkeypatch.setattr(annotation_cache, "LARGE", path.stat().st_size + 1)
    read_annotations(path)
    read_annotations(path)
    assert len(readings) == 2
    assert not folder.parent.exists()


def test_a_changed_file_is_read_again(path, readings):
    before = read_annotations(path)
    path.write_text(path.read_text().replace('"cup"', '"mug"'))  # of the same size
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert read_annotations(path).categories[0].name == "mug"
    assert before.categories[0].name == "cup"
    assert before.instances[4][0]["bbox"] == [1, 1, 5, 5]
    assert len(readings) == 2


def test_a_link_is_the_file_it_leads_to(path, readings, tmp_path):
    (tmp_path / "link.json").symlink_to(path)
    assert read_annotations(tmp_path / "link.json").path == tmp_path / "link.json"
    read_annotations(path)
    assert len(readings) == 1


DAMAGES = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "one byte less": lambda content: content[:-1],
    "text": lambda content: b"something else altogether, and long enough",
    "no header": lambda content: b"\xff" * 8 + content[8:],
    "another version": lambda content: content.replace(b'[\\"4\\"', b'[\\"0\\"'),
    "a bit in the arrays": lambda content: (
        content[:-200] + bytes([content[-200] ^ 1]) + content[-199:]
    ),
    "a list for a header": lambda content: (2).to_bytes(8, "little") + b"[]",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_cache_is_made_anew(path, plain, readings, folder, damage):
    read_annotations(path)
    file = cache_file(folder)
    sound = file.read_bytes()
    damaged = damage(sound)
    assert damaged != sound
    file.unlink()  # the old one is mapped
    file.write_bytes(damaged)
    assert contents(read_annotations(path)) == plain
    assert contents(read_annotations(path)) == plain
    assert len(readings) == 2


@pytest.mark.parametrize("obstacle", ["a file for a folder", "no home", "full"])
def test_without_a_cache_it_works_in_memory(path, plain, tmp_path, monkeypatch, obstacle):
    if obstacle == "a file for a folder":
        (tmp_path / "cache").write_text("in the way")
    elif obstacle == "no home":
        monkeypatch.delenv("BOTVISION_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(annotation_cache.Path, "home", no_home)
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(annotation_cache, "save_file", full)
    annotations = read_annotations(path)
    assert contents(annotations) == plain
    assert not list(tmp_path.glob("cache/annotations/*.safetensors"))
    assert contents(pickle.loads(pickle.dumps(annotations))) == plain


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_a_wrong_file_is_not_cached(path, folder):
    path.write_text(path.read_text().replace('"category_id": 7', '"category_id": 8'))
    for _ in range(2):
        with pytest.raises(BotvisionError, match="annotation 0: category_id"):
            read_annotations(path)
    assert not list(folder.glob("*.safetensors"))


def test_a_file_that_changes_while_it_is_read_is_not_cached(path, folder, monkeypatch):
    read = coco.read_arrays

    def slow(path):
        arrays = read(path)
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        return arrays

    monkeypatch.setattr(coco, "read_arrays", slow)
    assert len(read_annotations(path).images) == 2
    assert not list(folder.glob("*.safetensors"))


def test_those_who_start_together_read_once(path, plain, readings, monkeypatch):
    read = coco.read_arrays

    def slow(path):
        time.sleep(0.2)
        return read(path)

    monkeypatch.setattr(coco, "read_arrays", slow)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(contents(read_annotations(path))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [plain] * 4
    assert len(readings) == 1


def test_arrays_of_a_cache_are_mapped_and_read_only(path):
    read_annotations(path)
    arrays = read_annotations(path).arrays
    for array in arrays.values():
        base = array
        while isinstance(base.base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0


def test_a_cached_file_is_sent_by_its_path(path, plain, tmp_path):
    content = json.loads(path.read_text())
    record = content["annotations"][0]
    content["annotations"] = [{**record, "id": i} for i in range(5000)]
    large = tmp_path / "large.json"
    large.write_text(json.dumps(content))
    annotations = read_annotations(large)
    sent = pickle.dumps(annotations)
    assert len(sent) < 4000
    assert contents(pickle.loads(sent)) == contents(annotations)


def test_a_cache_that_is_gone_when_it_is_needed(path, folder):
    sent = pickle.dumps(read_annotations(path))
    cache_file(folder).unlink()
    with pytest.raises(BotvisionError, match="cached annotations that are in use are gone"):
        pickle.loads(sent)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"BOTVISION_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/botvision"),
        ({"BOTVISION_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/someone/.cache/botvision"),
    ],
)
def test_the_folder(monkeypatch, variables, expected):
    monkeypatch.delenv("BOTVISION_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(annotation_cache.cache_folder()) == expected
