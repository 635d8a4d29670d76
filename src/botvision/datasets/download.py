"""Public data sets, downloaded from their official addresses into folders to train on."""

import gzip
import itertools
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Literal

import numpy as np
from PIL import Image

from botvision.datasets.coco.writing import CocoImage, mask_annotation, write_coco
from botvision.errors import BotvisionError
from botvision.files import locked, new_folder
from botvision.images.decode import read_numbers
from botvision.images.find import is_image_name
from botvision.shards.fetch import fetch

Progress = Callable[[str, int, int], None]

_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR10_RECORD = 1 + 3 * 32 * 32
_PENN_FUDAN_VALIDATION = 50  # the last ones, as in PyTorch's tutorial, but in file order
_MAX_RATIO = 100  # unpacked to packed; JSON of numbers reaches about 10, a bomb 1,000
_FREE_BYTES = 100 * 2**20  # to which no ratio is applied: small text may well shrink so much
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error),
    *(EOFError, RuntimeError, ValueError),
)

IMAGENET_CLASSES = 1000
IMAGENET_IMAGES = {"train": 1_281_167, "val": 50_000}
IMAGENET_INSTRUCTIONS = """\
ImageNet must be downloaded manually, after an agreement to its terms, from https://image-net.org
(ILSVRC 2012, task 1 and 2: ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar). Unpack into
  {folder}/train/n01440764/*.JPEG ... {folder}/train/n15075141/*.JPEG
  {folder}/val/n01440764/*.JPEG ... {folder}/val/n15075141/*.JPEG
The training archive holds one archive per class; the validation images are in one folder and must
be sorted into the folders of their classes. Then run the command again: it counts them."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes:
        url: HTTP or HTTPS address.
        size: Size in bytes.
        checksum: Algorithm and hexadecimal digest, such as "md5:0f..."; "" where none is published.
    """

    url: str
    size: int
    checksum: str = ""

    @property
    def name(self) -> str:
        """Name of the file, the last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublicSet:
    """A data set and the archives that it comes in.

    Attributes:
        title: Description in one line.
        files: Archives to download.
        arrange: Function that makes the data set in its second argument, a folder, from the
            unpacked archives in its first.
    """

    title: str
    files: tuple[RemoteFile, ...]
    arrange: Callable[[Path, Path, Progress], None]


def get_public_set(chosen: PublicSet, folder: Path, *, progress: Progress | None = None) -> None:
    """Download a data set and write it into a new folder.

    Downloads are kept in ``<folder>.download`` until the folder is complete; a later call goes on
    with them.

    Args:
        chosen: Data set, one of ``PUBLIC_SETS``.
        folder: Folder to make; must not exist.
        progress: Called with the name of the step, the amount done and the total; in megabytes for
            downloads and archives.

    Raises:
        BotvisionError: If the folder exists, the disk is too small, or a download or archive is
            damaged.
    """
    told = progress or (lambda *_: None)
    if folder.exists():
        raise BotvisionError(f"{folder}: already exists; choose another folder or remove it")
    downloads = folder.with_name(f"{folder.name}.download")
    size = sum(remote.size for remote in chosen.files)
    have = sum(path.stat().st_size for path in downloads.glob("*"))
    needed = 2 * size - have  # the archives and, about as large, their content
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise BotvisionError(
            f"{folder.parent}: expected {needed / 1e9:.1f} GB of free disk for the archives and "
            f"their content, got {free / 1e9:.1f} GB"
        )
    downloads.mkdir(parents=True, exist_ok=True)

    def megabytes(step: str) -> Callable[[int, int], None]:
        return lambda done, total: told(f"{step}, MB", done // 10**6, -(-total // 10**6))

    with locked(downloads / ".lock"), new_folder(folder) as written:
        for remote in chosen.files:
            path = downloads / remote.name
            if not path.is_file():
                step = megabytes(f"download {path.name}")
                fetch(remote.url, path, size=remote.size, checksum=remote.checksum, progress=step)
        unpacked = written.with_name("unpacked")
        for remote in chosen.files:
            path = downloads / remote.name
            try:
                unpack(path, unpacked, progress=megabytes(f"unpack {path.name}"))
            except BotvisionError:
                path.unlink()  # the next call downloads it again
                raise
        chosen.arrange(unpacked, written, told)
    shutil.rmtree(downloads)


def unpack(
    archive: Path, folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Unpack a zip or tar file that may be hostile; nothing is written outside the folder.

    Links are refused even where they stay inside: data sets need none, and Python's own check of
    them has been evaded before (CVE-2025-4517).

    Args:
        archive: Path of the archive; its content, not its name, tells the format.
        folder: Folder to write to, which nobody reads yet.
        progress: Called with the number of bytes of the archive read and the total.

    Raises:
        BotvisionError: If the archive is damaged, unpacks to more than 100 MiB and 100 times its
            size, has a member twice, or holds anything but plain files and folders with paths
            inside the folder.
    """
    packed = archive.stat().st_size
    allowed, unpacked = max(_FREE_BYTES, _MAX_RATIO * packed), 0
    try:
        with archive.open("rb") as file:
            for name, size, plain, content in _members(file):
                place = PureWindowsPath(name)  # which splits at "/" as well
                unpacked += size
                fault = None
                if place.drive or place.root or ".." in place.parts or "\0" in name:
                    fault = "expected a path inside the archive's folder"
                elif not plain:
                    fault = "expected plain files and folders, got a link or a device"
                elif unpacked > allowed:
                    fault = f"expected at most {allowed:,} bytes unpacked, got {unpacked:,} so far"
                if fault is not None:
                    raise BotvisionError(f"{archive}: member {name!r}: {fault}; not unpacked")
                target = folder / PurePosixPath(*place.parts)
                (target if content is None else target.parent).mkdir(parents=True, exist_ok=True)
                if content is not None:
                    with content, target.open("xb") as written:
                        shutil.copyfileobj(content, written, 2**20)
                if progress is not None:
                    progress(file.tell(), packed)
    except (FileExistsError, NotADirectoryError) as error:
        raise BotvisionError(f"{archive}: {Path(error.filename).name}: occurs twice") from error
    except BotvisionError:
        raise
    except _DAMAGED as error:
        raise BotvisionError(f"{archive}: cannot be unpacked ({error}); get it again") from error


def _members(file: IO[bytes]) -> Iterator[tuple[str, int, bool, IO[bytes] | None]]:
    """Name and size of each member, whether it is plain, and its content unless it is a folder."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as opened:
            for info in opened.infolist():
                plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
                # filename ends at the first NUL, orig_filename is what the archive says.
                content = None if info.is_dir() else opened.open(info)
                yield info.orig_filename, info.file_size, plain, content
        return
    file.seek(0)
    mode: Literal["r:gz", "r:"] = "r:gz" if file.read(2) == b"\x1f\x8b" else "r:"
    file.seek(0)
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            yield member.name, member.size, member.isreg() or member.isdir(), content
        rest = archive.fileobj
        while rest is not None and rest.read(2**20):
            pass  # tarfile stops at the last member; the checksum of gzip comes after it


def _move(*names: str) -> Callable[[Path, Path, Progress], None]:
    def arrange(unpacked: Path, folder: Path, progress: Progress) -> None:
        for number, name in enumerate(names, start=1):
            _expected(unpacked / name).rename(folder / Path(name).name)
            progress("move folders", number, len(names))

    return arrange


def _expected(path: Path) -> Path:
    if not path.exists():
        raise BotvisionError(f"{path.name}: not in the archive; it is another one than expected")
    return path


def _arrange_penn_fudan(unpacked: Path, folder: Path, progress: Progress) -> None:
    """Turn masks whose pixels are numbers of pedestrians, 0 elsewhere, into run lengths."""
    images = sorted(_expected(unpacked / "PennFudanPed" / "PNGImages").glob("*.png"))
    read = []
    for number, image in enumerate(images, start=1):
        path = _expected(unpacked / "PennFudanPed" / "PedMasks" / f"{image.stem}_mask.png")
        numbers = read_numbers(path)
        persons = [value for value in np.unique(numbers) if value]
        annotations = [mask_annotation(numbers == value, category_id=1) for value in persons]
        read.append(CocoImage(image, numbers.shape[1], numbers.shape[0], annotations))
        progress("read masks", number, len(images))
    write_coco(
        folder,
        {"train": read[:-_PENN_FUDAN_VALIDATION], "val": read[-_PENN_FUDAN_VALIDATION:]},
        [{"id": 1, "name": "pedestrian"}],
        progress=lambda done, total: progress("write images", done, total),
    )


def _arrange_cifar10(unpacked: Path, folder: Path, progress: Progress) -> None:
    """Read the version for C programs: records of a class and 32 x 32 pixels, with no pickles."""
    source = _expected(unpacked / "cifar-10-batches-bin")
    classes = _CIFAR10_CLASSES.split()
    for split, name in itertools.product(("train", "val"), classes):
        (folder / split / name).mkdir(parents=True)
    batches = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    done = 0
    for number, name in enumerate(batches, start=1):
        content = np.fromfile(_expected(source / name), np.uint8)
        if len(content) % _CIFAR10_RECORD or (content[::_CIFAR10_RECORD] > 9).any():
            raise BotvisionError(f"{name}: expected records of a class from 0 to 9 and an image")
        split = "val" if name == batches[-1] else "train"
        for record in content.reshape(-1, _CIFAR10_RECORD):
            pixels = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            Image.fromarray(pixels).save(folder / split / classes[record[0]] / f"{done:05d}.png")
            done += 1
        progress("write images of batches", number, len(batches))


_COCO = "http://images.cocodataset.org"  # has no certificate; the checksums make up for it
# SHA-256 of COCO and CIFAR-10 are those of TensorFlow Datasets (url_checksums/coco.txt and
# cifar10.txt), Imagenette's MD5 is that of torchvision 0.29. None is published for Penn-Fudan; its
# size and the checksums inside the archive are checked.
PUBLIC_SETS = {
    "coco": PublicSet(
        "COCO 2017: 118,287 training and 5,000 validation images, 80 classes, boxes and masks",
        (
            RemoteFile(
                f"{_COCO}/annotations/annotations_trainval2017.zip",
                252_907_541,
                "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ),
            RemoteFile(
                f"{_COCO}/zips/val2017.zip",
                815_585_330,
                "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
            RemoteFile(
                f"{_COCO}/zips/train2017.zip",
                19_336_861_798,
                "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ),
        ),
        _move("annotations", "val2017", "train2017"),
    ),
    "penn-fudan": PublicSet(
        "Penn-Fudan: 170 images of pedestrians with masks, 120 to train and 50 to validate",
        (RemoteFile("https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip", 53_723_336),),
        _arrange_penn_fudan,
    ),
    "cifar10": PublicSet(
        "CIFAR-10: 50,000 training and 10,000 validation images of 32 x 32 pixels, 10 classes",
        (
            RemoteFile(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                170_052_171,
                "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        _arrange_cifar10,
    ),
    "imagenette": PublicSet(
        "Imagenette, 320 pixels: 9,469 training and 3,925 validation images, 10 ImageNet classes",
        (
            RemoteFile(
                "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
                341_663_724,
                "md5:3df6f0d01a2c9592104656642f5e78a3",
            ),
        ),
        _move("imagenette2-320/train", "imagenette2-320/val"),
    ),
}


def check_imagenet(
    folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Count the images of an ImageNet folder.

    Args:
        folder: Folder with ``train/<class>/*.JPEG`` and ``val/<class>/*.JPEG``.
        progress: Called with the number of class folders counted and the total.

    Returns:
        The number of images of each split.

    Raises:
        BotvisionError: If a split is incomplete.
    """
    for before, (split, expected) in enumerate(IMAGENET_IMAGES.items()):
        path = folder / split
        classes = sorted(each for each in path.glob("n" + 8 * "[0-9]") if each.is_dir())
        counts = {}
        for number, each in enumerate(classes, start=1):
            counts[each.name] = _count_images(each)
            if progress is not None:
                progress(before * IMAGENET_CLASSES + number, 2 * IMAGENET_CLASSES)
        if len(classes) != IMAGENET_CLASSES or sum(counts.values()) != expected:
            loose = _count_images(path) if path.is_dir() else 0
            fewest = min(counts, key=counts.__getitem__, default="none")
            raise BotvisionError(
                f"{path}: expected {IMAGENET_CLASSES} class folders n01440764 to n15075141 with "
                f"{expected:,} images, got {len(classes):,} with {sum(counts.values()):,} (fewest "
                f"in {fewest}) and {loose:,} images beside them; unpack the archives again"
            )
    return dict(IMAGENET_IMAGES)


def _count_images(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(is_image_name(entry.name) for entry in entries)
