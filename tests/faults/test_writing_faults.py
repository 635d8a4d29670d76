"""Rows of the fault corpus about files that cannot be written to their end."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from botvision.files import replacing

KILLED = """
import sys, time
from pathlib import Path
from botvision.files import replacing

with replacing(Path(sys.argv[1])) as temporary, temporary.open("wb") as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""

FULL = """
import resource, signal, sys
from pathlib import Path
from botvision.files import replacing

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    with replacing(Path(sys.argv[1])) as temporary:
        temporary.write_bytes(bytes(10_000))
except OSError as error:
    print(type(error).__name__)
"""


def test_row_34_killed_in_the_middle(tmp_path):
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"half\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    # What the dead process left is hidden and does not stop the next one.
    left = [each for each in tmp_path.iterdir() if each != path]
    assert all(each.name.startswith(".") for each in left)
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new"


def test_row_35_no_room_for_the_file(tmp_path):
    # A limit on the size of files is as real as a full disk and needs no privileges.
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "OSError\n", done.stderr
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {path.name: b"old"}


def test_row_35_no_room_found_when_flushing(tmp_path, monkeypatch):
    # Network disks tell only then.
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), replacing(path) as temporary:
        temporary.write_bytes(b"new")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {path.name: b"old"}


def test_row_35_no_room_for_the_handwriting(tmp_path, monkeypatch):
    from PIL import Image

    from botvision.datasets.handwriting import write_handwriting

    save = Image.Image.save

    def full(self, path, *args, **options):
        save(self, path, *args, **options)
        if "000002" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_handwriting(tmp_path / "a", train=4, val=1, size=32, progress=lambda *_: None)
    assert list(tmp_path.iterdir()) == []
