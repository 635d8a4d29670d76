"""Replacing a file: a reader sees the old one or the new one, whatever happens in between."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from botvision.files import replacing

DESCRIPTORS = Path("/proc/self/fd")


class StopError(Exception):
    """Ends a block in the middle."""


@pytest.fixture
def target(tmp_path):
    return tmp_path / "best.safetensors"


@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "old"])
def test_the_file_takes_its_place(target, old):
    if old is not None:
        target.write_bytes(old)
    with replacing(target) as temporary:
        temporary.write_bytes(b"new")
        # Beside its target, since a rename between file systems is no rename.
        assert temporary.parent == target.parent
        assert temporary != target
        assert temporary.suffix == target.suffix
        assert (target.read_bytes() if target.exists() else None) == old
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "old"])
@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt])
def test_a_failing_block_changes_nothing(target, old, error):
    if old is not None:
        target.write_bytes(old)

    def fail():
        with replacing(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.read_bytes() for path in target.parent.iterdir()] == [old] * (old is not None)


def test_a_block_that_removes_its_file(target):
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), replacing(target) as temporary:
        temporary.unlink()
    assert [path.read_bytes() for path in target.parent.iterdir()] == [b"old"]


def test_a_writer_that_renames_onto_the_temporary_path(target):
    # Libraries that write safely themselves do so.
    with replacing(target) as temporary:
        own = temporary.with_suffix(".own")
        own.write_bytes(b"new")
        own.chmod(0o600)
        own.replace(temporary)
        public = target.with_name("public")
        public.touch()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode == public.stat().st_mode
    public.unlink()
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
@pytest.mark.parametrize("exists", [False, True])
def test_permissions_honor_the_umask(target, mask, exists):
    if exists:
        target.touch(mode=0o600)
    before = os.umask(mask)
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(b"new")
        assert os.umask(mask) == mask  # looked at, not changed
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask


def test_flushed_before_and_after_the_rename(target, monkeypatch):
    # Without the first a crash may leave an empty file of the right name; without the second
    # the rename itself may be lost.
    events = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor):
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def recording_replace(*paths):
        events.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    with replacing(target) as temporary:
        temporary.write_bytes(b"new")
    assert events == ["file", "rename", "folder"]


def test_descriptors_are_closed(target):
    if not DESCRIPTORS.is_dir():
        pytest.skip("no /proc on this system")
    before = len(list(DESCRIPTORS.iterdir()))
    for _ in range(5):
        with replacing(target) as temporary:
            temporary.write_bytes(b"new")
        with pytest.raises(StopError), replacing(target):
            raise StopError
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none" / "a.json"):
        pass


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="irectory"), replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_writers_at_once_do_not_mix(target):
    with replacing(target) as one, replacing(target) as other:
        assert one != other
        one.write_bytes(b"1" * 10)
        other.write_bytes(b"2" * 10)
    assert target.read_bytes() == b"1" * 10  # the last to end
    assert list(target.parent.iterdir()) == [target]


WRITER = """
import sys
from itertools import cycle
from pathlib import Path
from botvision.files import replacing

for letter in cycle(b"abc"):
    with replacing(Path(sys.argv[1])) as temporary, temporary.open("wb") as file:
        for _ in range(200):
            file.write(bytes([letter]) * 1000)
            file.flush()
    print("done", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.02, 0.05])
def test_killed_at_any_time_the_file_is_whole(target, delay):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()  # the first file is there
        time.sleep(delay)
        process.kill()
    content = target.read_bytes()
    assert len(content) == 200_000
    assert len(set(content)) == 1
