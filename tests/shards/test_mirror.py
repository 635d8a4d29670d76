"""Data sets at an address: fetched shard by shard, within bounds, and never the wrong bytes."""

import contextlib
import http.server
import json
import os
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.coco.sharding import shard_coco
from botvision.datasets.loading import load_batches
from botvision.errors import BotvisionError
from botvision.shards import fetch as fetching
from botvision.shards.mirror import open_data_folder

COUNT = 12


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BOTVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "_WAIT", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def origin(write_coco, tmp_path):
    """A sharded data set of twelve images in four shards or more."""
    images = [
        {"id": i, "file_name": f"{i}.png", "height": 40, "width": 40} for i in range(1, COUNT + 1)
    ]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [i, 2, 9, 9]} for i in range(1, COUNT + 1)]
    folder = write_coco(images, boxes)
    shard_coco(folder, tmp_path / "origin", shard_size=15_000, progress=lambda *_: None)
    assert len(shards_in(tmp_path / "origin")) >= 4
    return tmp_path / "origin"


def shards_in(folder):
    return sorted(path.name for path in folder.rglob("*.tar"))


def read_all(data):
    return [data[0, index] for index in range(len(data))]


def assert_same(found, expected):
    for (image, target), (other, other_target) in zip(found, expected, strict=True):
        assert torch.equal(image, other)
        assert target["image_id"] == other_target["image_id"]
        assert torch.equal(target["boxes"], other_target["boxes"])


def test_a_path_is_itself():
    assert open_data_folder("a/b") == Path("a/b")


def test_shards_come_when_they_are_asked_for(origin, cache):
    folder = open_data_folder(f"file://{origin}/")
    assert folder.is_relative_to(cache)
    data = CocoInstances(folder, "train")
    assert shards_in(cache) == []
    expected = read_all(CocoInstances(origin, "train"))
    assert_same([data[0, 0]], expected[:1])
    assert shards_in(cache) == ["00000.tar"]
    assert_same(read_all(data), expected)
    assert shards_in(cache) == shards_in(origin)
    # What is there is not fetched again.
    for path in origin.rglob("*.tar"):
        path.unlink()
    assert_same(read_all(CocoInstances(open_data_folder(f"file://{origin}"), "train")), expected)


def test_another_state_is_another_mirror(origin, cache):
    first = open_data_folder(f"file://{origin}")
    assert open_data_folder(f"file://{origin}") == first
    manifest = origin / "shards.json"
    content = json.loads(manifest.read_text())
    content["files"].pop("images/train/index.json")
    manifest.write_text(json.dumps(content))
    assert open_data_folder(f"file://{origin}") != first


@pytest.mark.parametrize("num_workers", [0, 2])
def test_limited_cache_holds_what_is_read_last(num_workers, origin, cache, monkeypatch):
    largest = max(path.stat().st_size for path in origin.rglob("*.tar"))
    monkeypatch.setenv("BOTVISION_CACHE_GIB", str(2 * largest / 2**30))
    data = CocoInstances(open_data_folder(f"file://{origin}"), "train")
    batches = [[(0, i), (0, COUNT - 1 - i)] for i in range(COUNT)]
    loaded = load_batches(data, batches, collate=list, num_workers=num_workers)
    expected = read_all(CocoInstances(origin, "train"))
    for batch, keys in zip(loaded, batches, strict=True):
        assert_same(batch, [expected[index] for _, index in keys])
        # Two workers may be fetching at a time.
        assert len(shards_in(cache)) <= 2 + num_workers
    assert len(shards_in(cache)) <= 2


def test_limit_below_one_shard_keeps_one(origin, cache, monkeypatch):
    monkeypatch.setenv("BOTVISION_CACHE_GIB", "1e-9")
    data = CocoInstances(open_data_folder(f"file://{origin}"), "train")
    assert_same(read_all(data), read_all(CocoInstances(origin, "train")))
    assert len(shards_in(cache)) == 1


def test_least_recently_read_goes_first(origin, cache, monkeypatch):
    data = CocoInstances(open_data_folder(f"file://{origin}"), "train")
    starts = [sum(data.shard_lengths[:k]) for k in range(4)]
    for age, k in enumerate((0, 1, 2)):
        _ = data[0, starts[k]]
        (path,) = cache.rglob(f"0000{k}.tar")
        os.utime(path, (age, age))
    _ = data[0, starts[0]]
    sizes = [path.stat().st_size for path in cache.rglob("*.tar")]
    monkeypatch.setenv("BOTVISION_CACHE_GIB", str((sum(sizes) + 1) / 2**30))
    _ = data[0, starts[3]]
    assert shards_in(cache) == ["00000.tar", "00002.tar", "00003.tar"]


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan"])
def test_limit_that_is_none(text, origin, monkeypatch):
    monkeypatch.setenv("BOTVISION_CACHE_GIB", text)
    data = CocoInstances(open_data_folder(f"file://{origin}"), "train")
    with pytest.raises(BotvisionError, match=r"BOTVISION_CACHE_GIB: expected a number of GiB"):
        _ = data[0, 0]


def test_changed_shard_is_refused_and_not_kept(origin, cache):
    data = CocoInstances(open_data_folder(f"file://{origin}"), "train")
    path = origin / "images" / "train" / "00000.tar"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BotvisionError, match=r"00000\.tar: expected .* bytes of sha256 "):
        _ = data[0, 0]
    path.write_bytes(content + b"more")
    with pytest.raises(BotvisionError, match=r"expected .* bytes"):
        _ = data[0, 0]
    path.unlink()
    with pytest.raises(BotvisionError, match=r"^file://.*00000\.tar: no such file$"):
        _ = data[0, 0]
    assert [p for p in cache.rglob("*") if ".tar" in p.name] == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("file:///nowhere/at/all", "no such file"),
        ("nonsense://a/b", "Protocol not known"),
    ],
)
def test_address_that_is_none(address, expected, cache):
    with pytest.raises(BotvisionError, match=expected) as caught:
        open_data_folder(address)
    assert str(caught.value).startswith(f"{address}/shards.json: ")
    assert "\n" not in str(caught.value)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "expected what botvision data shard has written"),
        ('{"format": "x", "files": {}}', "format: expected 'botvision shards 1', got 'x'"),
    ],
)
def test_manifest_that_is_none(content, expected, origin):
    (origin / "shards.json").write_text(content)
    with pytest.raises(BotvisionError, match=expected):
        open_data_folder(f"file://{origin}")


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "a/../../evil.json", "..\\evil"])
def test_manifest_leads_nowhere_else(name, origin, cache, tmp_path):
    manifest = origin / "shards.json"
    content = json.loads(manifest.read_text())
    content["files"][name] = {"size": 1, "sha256": "0"}
    manifest.write_text(json.dumps(content))
    with pytest.raises(BotvisionError, match="expected a path inside the folder"):
        open_data_folder(f"file://{origin}")
    assert not cache.exists()


def test_a_folder_of_the_users_fetches_nothing(origin, tmp_path):
    """A folder from somebody else must not send the program to addresses of theirs."""
    shutil.copytree(origin, tmp_path / "mine")
    place = tmp_path / "mine" / "images" / "train"
    (place / "origin.txt").write_text(f"file://{origin}/images/train")
    (place / "00000.tar").unlink()
    data = CocoInstances(tmp_path / "mine", "train")
    with pytest.raises(BotvisionError, match=r"00000\.tar: no such shard"):
        _ = data[0, 0]


def test_web_server_that_does_not_answer_or_has_no_such_file(tmp_path):
    handler = partial(_Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(BotvisionError, match=r"shards\.json: no such file$"):
            open_data_folder(address)
        server.shutdown()
    with pytest.raises(BotvisionError, match=r"shards\.json: cannot be fetched \(.*connect"):
        open_data_folder(address)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Cuts every third answer that is a shard."""

    asked = 0

    def copyfile(self, source, outputfile):
        if self.path.endswith(".tar"):
            type(self).asked += 1
            if self.asked % 3 == 1:
                outputfile.write(source.read(1000))
                self.connection.close()
                return
        with contextlib.suppress(ConnectionError):  # whoever fetched ahead has ended
            super().copyfile(source, outputfile)

    def log_message(self, *arguments):
        pass


def test_from_a_web_server_that_cuts_connections(origin):
    _Handler.asked = 0
    handler = partial(_Handler, directory=str(origin))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            data = CocoInstances(open_data_folder(address), "train")
            batches = [[(0, index)] for index in range(COUNT)]
            loaded = load_batches(data, batches, collate=list, num_workers=1)
            found = [batch[0] for batch in loaded]
        finally:
            server.shutdown()
    assert_same(found, read_all(CocoInstances(origin, "train")))
    assert _Handler.asked > len(shards_in(origin))
