"""Row 32: archives with paths or links that lead out, devices and bombs; nothing is written."""

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile

import pytest

from botvision.datasets.public.archives import extract_archive
from botvision.errors import BotvisionError


def ignore(done, total):
    pass


@pytest.fixture
def refused(tmp_path, tree):
    """A function that expects an archive to be refused in one line, with nothing written."""

    def expect(archive, *words, **limits):
        before = tree(tmp_path)
        with pytest.raises(BotvisionError) as caught:
            extract_archive(archive, tmp_path / "out", progress=ignore, **limits)
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
    refused(tar_of(tmp_path / "a.tar", ("device", kind, "")), "'device'", "a device")


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


def test_many_small_files_that_add_up(tmp_path, refused):
    members = [(f"{number}", tarfile.REGTYPE, bytes(1000)) for number in range(20)]
    refused(
        tar_of(tmp_path / "a.tar", *members), "expected at most 10,000 bytes", most_bytes=10_000
    )


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_too_many_members(tmp_path, refused, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        tar_of(path, *((str(number), tarfile.REGTYPE, b"") for number in range(10)))
    else:
        zip_of(path, *((str(number), b"") for number in range(10)))
    refused(path, "at most 10 members", most_members=10)
    extract_archive(path, tmp_path / "out", progress=ignore, most_members=11)


def test_a_zip_that_hides_its_size(tmp_path, refused):
    """The directory and the header say 10 bytes; the compressed data are a bomb."""
    path = zip_of(tmp_path / "a.zip", ("zeros", bytes(2**20)), compression=zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    assert content.count(struct.pack("<L", 2**20)) == 2
    path.write_bytes(content.replace(struct.pack("<L", 2**20), struct.pack("<L", 10)))
    refused(path, "zeros")


def test_a_great_header_is_not_held_in_memory(tmp_path, refused):
    """tarfile reads a pax header in one piece, however large it says it is."""
    info = tarfile.TarInfo("header")
    info.type = tarfile.XHDTYPE
    info.size = 400 * 2**20
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(400):
            file.write(bytes(2**20))
    tracemalloc.start()
    try:
        refused(path, "a header of 419430400 bytes")
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_a_name_that_occurs_twice(tmp_path, refused):
    members = [("a", tarfile.REGTYPE, b"1"), ("a", tarfile.REGTYPE, b"2")]
    refused(tar_of(tmp_path / "a.tar", *members), "'a'", "occurs twice")
    members = [("a", tarfile.REGTYPE, b"1"), ("a/b", tarfile.REGTYPE, b"2")]
    refused(tar_of(tmp_path / "b.tar", *members), "'a/b'", "occurs twice")


def test_a_zip_name_cut_by_a_zero(tmp_path, refused):
    path = zip_of(tmp_path / "a.zip", ("evil?.txt", b"x"))
    path.write_bytes(path.read_bytes().replace(b"evil?.txt", b"evil\0.txt"))
    refused(path, "inside the archive's folder")


def test_a_password(tmp_path, refused):
    path = zip_of(tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    refused(path, "without a password")


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


def test_an_existing_folder_is_left_alone(tmp_path, refused):
    path = zip_of(tmp_path / "a.zip")
    (tmp_path / "out").mkdir()
    with pytest.raises(BotvisionError, match="already exists"):
        extract_archive(path, tmp_path / "out", progress=ignore)
    assert not any((tmp_path / "out").iterdir())
