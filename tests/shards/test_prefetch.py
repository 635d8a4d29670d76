"""Shards ahead of the batches: the next few and no others, whatever goes wrong with them."""

import hashlib
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from botvision.datasets.check.images import read_images
from botvision.datasets.coco.dataset import CocoInstances
from botvision.datasets.coco.sharding import shard_coco
from botvision.datasets.loading import load_batches
from botvision.shards import fetch as fetching
from botvision.shards import prefetch as shards_ahead
from botvision.shards.index import Shard, write_index
from botvision.shards.mirror import open_data_folder
from botvision.shards.read import ShardError, ShardFiles

SHARDS = 6
SIZE = 1000
# One image a shard, and these batches: epoch 0 needs the shards in this order, then again.
ORDER = [3, 0, 5, 1, 4, 2]
BATCHES = [[(epoch, index)] for epoch in (0, 1) for index in ORDER]


class Numbered:
    """A data set of which item i is in shard i."""

    def __init__(self, files):
        self.shard_files = files

    def shard(self, index):
        return index


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Where the shards come from, the folder that they are fetched into, and the data set."""
    monkeypatch.setenv("BOTVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "_WAIT", 0.0)
    origin, here = tmp_path / "origin", tmp_path / "cache" / "shards" / "a"
    origin.mkdir()
    here.mkdir(parents=True)
    shards = []
    for number in range(SHARDS):
        content = bytes([number]) * SIZE
        name = f"0000{number}.tar"
        (origin / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        shards.append(Shard(name, SIZE, digest, [(f"{number}.jpg", 0, SIZE)]))
    write_index(here, shards)
    (here / "origin.txt").write_text(f"file://{origin}")
    return SimpleNamespace(origin=origin, here=here, data=Numbered(ShardFiles(here, shards)))


def comes_to_hold(folder, shards):
    """Whether the folder has these shards, in a while, and then no others."""
    names = {f"0000{number}.tar" for number in shards}
    for _ in range(200):
        if {path.name for path in folder.glob("*.tar")} >= names:
            time.sleep(0.3)
            return {path.name for path in folder.glob("*.tar")} == names
        time.sleep(0.05)
    return False


def test_the_next_shards_come_as_the_batches_go(made, monkeypatch):
    monkeypatch.setattr(shards_ahead, "AHEAD", 2)
    with shards_ahead.shards_ahead(made.data, BATCHES) as advance:
        assert comes_to_hold(made.here, ORDER[:2])
        advance()
        assert comes_to_hold(made.here, ORDER[:3])
        advance()
        advance()
        assert comes_to_hold(made.here, ORDER[:5])
        # The next epoch needs again what had to make room in this one.
        for path in made.here.glob("*.tar"):
            path.unlink()
        for _ in range(3):
            advance()
        assert comes_to_hold(made.here, [ORDER[5], *ORDER[:2]])
    assert multiprocessing.active_children() == []


def test_processes_of_a_machine_share_what_it_holds(made, monkeypatch):
    monkeypatch.setattr(shards_ahead, "AHEAD", 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with shards_ahead.shards_ahead(made.data, BATCHES):
        assert comes_to_hold(made.here, ORDER[:2])


@pytest.mark.parametrize(("room", "ahead"), [(3.9, 0), (4.1, 1), (9, 2)])
def test_a_limited_cache_is_not_filled_with_what_is_not_needed_yet(made, monkeypatch, room, ahead):
    monkeypatch.setenv("BOTVISION_CACHE_GIB", str(room * SIZE / 2**30))
    with shards_ahead.shards_ahead(made.data, BATCHES):
        assert len(multiprocessing.active_children()) == (ahead > 0)
        assert comes_to_hold(made.here, ORDER[:ahead])


def test_faults_are_left_to_who_reads(made):
    (made.origin / "00000.tar").unlink()
    with shards_ahead.shards_ahead(made.data, BATCHES):
        assert comes_to_hold(made.here, [1, 2, 3, 4, 5])
    with pytest.raises(ShardError, match=r"00000\.tar: no such file$"):
        made.data.shard_files.read(0, 0, 1)


def test_no_process_for_shards_that_are_here_or_none(made, tmp_path):
    mine = ShardFiles(tmp_path, [Shard("00000.tar", SIZE, "", [("0.jpg", 0, SIZE)])])
    for data in (Numbered(mine), Numbered(None), [1, 2]):
        with shards_ahead.shards_ahead(data, BATCHES) as advance:
            advance()
            assert multiprocessing.active_children() == []


def test_it_ends_with_whoever_started_it(made, tmp_path):
    script = f"""
import multiprocessing, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_prefetch import BATCHES, Numbered
from botvision.shards import prefetch as shards_ahead
from botvision.shards.read import ShardFiles
from botvision.shards.index import read_index
shards_ahead.AHEAD = 1
here = Path({str(made.here)!r})
with shards_ahead.shards_ahead(Numbered(ShardFiles(here, read_index(here))), BATCHES):
    (child,) = multiprocessing.active_children()
    print(child.pid, flush=True)
    while not list(here.glob("*.tar")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    child = Path("/proc", ended.stdout.strip())
    assert child.name.isdecimal()
    deadline = time.monotonic() + 30
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists()


def in_batches(data):
    batches = [[(0, index)] for index in range(len(data))]
    for ((_, target),) in load_batches(data, batches, collate=list, num_workers=0):
        yield target["image_id"]


def checked(data):
    places = range(len(data))
    for seen in read_images(data.annotations, data.images, places, num_workers=0):
        assert seen.finding is None
        yield data.annotations.images[seen.index]["id"]


@pytest.mark.parametrize("read", [in_batches, checked])
def test_readers_find_what_was_fetched_ahead(read, write_coco, tmp_path, monkeypatch):
    monkeypatch.setenv("BOTVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards_ahead, "AHEAD", 100)
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 40} for i in range(1, 21)]
    shard_coco(write_coco(images), tmp_path / "origin", shard_size=5000, progress=lambda *_: None)
    data = CocoInstances(open_data_folder(f"file://{tmp_path / 'origin'}"), "train")
    assert len(data.shard_lengths) > 16
    asked = []
    monkeypatch.setattr(
        ShardFiles,
        "fetch",
        lambda self, number, fetch=ShardFiles.fetch: (asked.append(number), fetch(self, number)),
    )
    found = read(data)
    first = next(found)
    here = tmp_path / "cache" / "shards"
    for _ in range(200):
        if len(list(here.rglob("[!.]*.tar"))) == len(data.shard_lengths):
            break
        time.sleep(0.05)
    else:
        pytest.fail("no shard was fetched ahead")
    asked.clear()
    assert [first, *found] == [record["id"] for record in data.annotations.images]
    assert asked == []
    assert multiprocessing.active_children() == []
