"""Row 32: archives with paths or links that lead out, devices and bombs; nothing is written."""

import gzip
import io
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from botvision.datasets.download import unpack
from botvision.errors import BotvisionError
from botvision.files import new_folder


@pytest.fixture
def refused(tmp_path, tree):
    """A function that expects an archive to be refused in one line, with nothing written."""

    def expect(archive, *words):
        before = tree(tmp_path)
        with pytest.raises(BotvisionError) as caught, new_folder(tmp_path / "out") as written:
            unpack(archive, written)
        message = str(caught.value)
        assert "\n" not in message
        for word in (archive.name, *words):
            assert word in message
        assert tree(tmp_path) == before

    return expect


def tar_of(path, *members, mode="w"):
    """A tar file of a good file and these members, (name, type, link or content)."""
    with tarfile.open(path, mode) as archive:
        good = tarfile.TarInfo("good.txt")
        good.size = 4
        archive.addfile(good, io.BytesIO(b"good"))
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
            else:
                info.linkname = value
                archive.addfile(info)
    return path


def zip_of(path, *members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("good.txt", "good")
        for info, content in members:
            archive.writestr(info, content)
    return path


NAMES = [
    "../evil",
    "a/../../evil",
    "/tmp/evil",
    "..\\evil",
    "C:\\evil",
    "C:evil",
    "\\\\host\\x\\evil",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_name_that_leads_out(tmp_path, refused, name, mode):
    member = (name, tarfile.REGTYPE, b"evil")
    refused(
        tar_of(tmp_path / "a.tar", member, mode=mode), repr(name), "inside the archive's folder"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_zip_name_that_leads_out(tmp_path, refused, name):
    refused(zip_of(tmp_path / "a.zip", (name, b"evil")), repr(name), "inside the archive's folder")


@pytest.mark.parametrize("name", ["../evil/", "/evil/"])
def test_a_folder_that_leads_out(tmp_path, refused, name):
    refused(tar_of(tmp_path / "a.tar", (name, tarfile.DIRTYPE, "")), "inside the archive's folder")
    refused(zip_of(tmp_path / "a.zip", (name, b"")), "inside the archive's folder")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd", "good.txt", "."])
def test_a_tar_link(tmp_path, refused, kind, target):
    refused(tar_of(tmp_path / "a.tar", ("link", kind, target)), "'link'", "got a link")


def test_a_file_through_a_link(tmp_path, refused):
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = tar_of(
        tmp_path / "a.tar",
        ("link", tarfile.SYMTYPE, str(outside)),
        ("link/evil", tarfile.REGTYPE, b"evil"),
    )
    refused(archive, "'link'")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_device(tmp_path, refused, kind):
    refused(tar_of(tmp_path / "a.tar", ("device", kind, "")), "'device'", "got a link or a device")


def test_a_zip_link(tmp_path, refused):
    info = zipfile.ZipInfo("link")
    info.create_system = 3
    info.external_attr = 0o120777 << 16
    refused(zip_of(tmp_path / "a.zip", (info, b"/etc/passwd")), "'link'", "got a link")


def test_a_zip_bomb(tmp_path, refused):
    content = bytes(150 * 2**20)
    path = zip_of(tmp_path / "a.zip", ("zeros", content), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    refused(path, "'zeros'", "expected at most 104,857,600 bytes", "got 157,286,404")


def test_a_tar_bomb(tmp_path, refused):
    member = ("zeros", tarfile.REGTYPE, bytes(150 * 2**20))
    refused(
        tar_of(tmp_path / "a.tar.gz", member, mode="w:gz"), "expected at most 104,857,600 bytes"
    )


def test_files_that_add_up(tmp_path, refused):
    members = [(str(number), bytes(30 * 2**20)) for number in range(4)]
    refused(
        zip_of(tmp_path / "a.zip", *members, compression=zipfile.ZIP_DEFLATED),
        "'3'",
        "expected at most 104,857,600 bytes",
    )


def test_a_zip_that_hides_its_size(tmp_path, refused):
    """The directory and the header say 10 bytes; the compressed data are a bomb."""
    path = zip_of(tmp_path / "a.zip", ("zeros", bytes(2**20)), compression=zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    assert content.count(struct.pack("<L", 2**20)) == 2
    path.write_bytes(content.replace(struct.pack("<L", 2**20), struct.pack("<L", 10)))
    refused(path, "zeros")


def test_a_name_that_occurs_twice(tmp_path, refused):
    members = [("a", tarfile.REGTYPE, b"1"), ("a", tarfile.REGTYPE, b"2")]
    refused(tar_of(tmp_path / "a.tar", *members), "a: occurs twice")
    members = [("a", tarfile.REGTYPE, b"1"), ("a/b", tarfile.REGTYPE, b"2")]
    refused(tar_of(tmp_path / "b.tar", *members), "occurs twice")


def test_a_zip_name_cut_by_a_zero(tmp_path, refused):
    path = zip_of(tmp_path / "a.zip", ("evil?.txt", b"x"))
    path.write_bytes(path.read_bytes().replace(b"evil?.txt", b"evil\0.txt"))
    refused(path, "inside the archive's folder")


def test_a_password(tmp_path, refused):
    path = zip_of(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    refused(path, "password required")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_damaged_archives(tmp_path, refused, kind):
    """Wherever an archive is cut it is refused, or the good files it has are whole."""
    path = tmp_path / f"whole.{kind}"
    content = bytes(range(256)) * 8
    if kind == "zip":
        zip_of(path, ("b/c.bin", content), compression=zipfile.ZIP_DEFLATED)
    else:
        tar_of(
            path, ("b/c.bin", tarfile.REGTYPE, content), mode="w:gz" if kind == "tar.gz" else "w"
        )
    whole = path.read_bytes()
    damaged = tmp_path / f"damaged.{kind}"
    # A plain tar file may end after any member.
    accepted = range(1024, 1536) if kind == "tar" else ()
    for length in [*range(0, min(len(whole), 3000), 61), len(whole) - 1]:
        damaged.write_bytes(whole[:length])
        if length in accepted or (kind == "tar" and length > 1536 + len(content)):
            continue
        refused(damaged, "cannot be unpacked")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_changed_bytes_are_noticed(tmp_path, refused, kind):
    content = bytes(range(256)) * 8
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        zip_of(path, ("c.bin", content))
    else:
        tar_of(path, ("c.bin", tarfile.REGTYPE, content), mode="w:gz")
        # Stored, so that the change is one of the content and of nothing else.
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    changed = bytearray(path.read_bytes())
    changed[changed.index(content) + 300] ^= 1
    path.write_bytes(changed)
    refused(path, "cannot be unpacked")


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8bnot gzip", b"PK\3\4not zip"])
def test_no_archive(tmp_path, refused, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    refused(path, "cannot be unpacked")


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_sound_archives_come_out_as_they_went_in(tmp_path, tree, kind):
    """Whatever their name says; text that shrinks a lot is no bomb."""
    source = tmp_path / "source"
    (source / "a" / "b c").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "a" / "b c" / "\xfc.txt").write_text("text")
    (source / "a" / "zeros.json").write_text("0," * 2_000_000)
    (source / "a" / ("long" * 30)).write_text("")
    archive = shutil.make_archive(str(tmp_path / "made"), kind, source)
    archive = Path(archive).rename(tmp_path / "a.bin")
    seen = []
    unpack(archive, tmp_path / "out", progress=lambda *now: seen.append(now))
    assert tree(tmp_path / "out") == tree(source)
    assert all(0 <= done <= total == archive.stat().st_size for done, total in seen)
