"""Sound archives come out as they went in, beside what tar and zip make of them."""

import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from botvision.datasets.public.archives import extract_archive
from botvision.errors import BotvisionError


@pytest.fixture
def source(tmp_path):
    """A folder of files, one empty, one not of text, one in folders, and an empty folder."""
    folder = tmp_path / "source"
    (folder / "a" / "b c").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "none.txt").touch()
    (folder / "a" / "b c" / "ü.txt").write_text("text")
    noise = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8)
    (folder / "a" / "noise.bin").write_bytes(noise.tobytes())
    (folder / "a" / "zeros.bin").write_bytes(bytes(5_000_000))
    return folder


def pack(source, path):
    kind = {".zip": "zip", ".tar": "tar", ".gz": "gztar"}[path.suffix]
    made = shutil.make_archive(str(path.parent / "made"), kind, source)
    return Path(made).rename(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_what_went_in_comes_out(tmp_path, source, tree, name):
    seen = []
    archive = pack(source, tmp_path / name)
    extract_archive(archive, tmp_path / "out", progress=lambda *now: seen.append(now))
    assert tree(tmp_path / "out") == tree(source)
    assert seen == sorted(seen)
    assert all(0 <= done <= total == archive.stat().st_size for done, total in seen)
    assert seen[-1][0] > 0.9 * seen[-1][1]


def test_tar_agrees_with_the_program(tmp_path, source, tree):
    archive = tmp_path / "a.tgz"
    subprocess.run(["tar", "czf", archive, "-C", source.parent, source.name], check=True)
    extract_archive(archive, tmp_path / "out", progress=lambda *now: None)
    assert tree(tmp_path / "out" / "source") == tree(source)


def test_the_kind_is_the_content_not_the_name(tmp_path, source, tree):
    archive = pack(source, tmp_path / "a.zip").rename(tmp_path / "a.tar")
    extract_archive(archive, tmp_path / "out", progress=lambda *now: None)
    assert tree(tmp_path / "out") == tree(source)


def test_long_names(tmp_path):
    """Names of more than 100 characters stand in headers of their own."""
    name = "/".join(["folder" * 8] * 4) + "/file.txt"
    file = tmp_path / "file"
    file.write_text("x")
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        archive = tmp_path / f"{form}.tar.gz"
        with tarfile.open(archive, "w:gz", format=form) as opened:
            opened.add(file, arcname=name)
        extract_archive(archive, tmp_path / f"out{form}", progress=lambda *now: None)
        assert (tmp_path / f"out{form}" / name).read_text() == "x"


def test_permissions_are_ordinary(tmp_path):
    """No program comes out ready to run, and the folder is as readable as others."""
    archive = tmp_path / "a.tar"
    info = tarfile.TarInfo("run.sh")
    info.mode = 0o6777
    with tarfile.open(archive, "w") as opened:
        opened.addfile(info)
    extract_archive(archive, tmp_path / "out", progress=lambda *now: None)
    (tmp_path / "ordinary").mkdir()
    assert stat.S_IMODE((tmp_path / "out" / "run.sh").stat().st_mode) & 0o7111 == 0
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_what_is_no_archive(tmp_path):
    for content in (b"", b"text", b"\x1f\x8bnot gzip", b"PK\3\4not zip"):
        path = tmp_path / "a.zip"
        path.write_bytes(content)
        with pytest.raises(BotvisionError, match="cannot be unpacked") as caught:
            extract_archive(path, tmp_path / "out", progress=lambda *now: None)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_nothing(tmp_path, source):
    archive = pack(source, tmp_path / "a.zip")
    before = sorted(tmp_path.iterdir())

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_archive(archive, tmp_path / "out", progress=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_zips_of_more_than_the_ratio_but_small(tmp_path):
    """Small text shrinks a lot and is no bomb."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.json", "[" + "0," * 2_000_000 + "0]")
    assert archive.stat().st_size * 100 < 4_000_000
    extract_archive(archive, tmp_path / "out", progress=lambda *now: None)
    assert (tmp_path / "out" / "a.json").stat().st_size == 4_000_003
