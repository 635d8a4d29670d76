"""Public data sets, from their official places into folders that we train on."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from botvision.datasets.coco.writing import CocoImage, mask_annotation, write_coco
from botvision.datasets.public.archives import extract_into
from botvision.datasets.public.downloads import RemoteFile, download
from botvision.errors import BotvisionError
from botvision.files import new_folder
from botvision.images.decode import read_numbers

# (what is being done, done, all)
Progress = Callable[[str, int, int], None]

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_CIFAR10_RECORD = 1 + 3 * 32 * 32
_PENN_FUDAN_VALIDATION = 50  # the last ones, as in PyTorch's tutorial, but in file order


@dataclass(frozen=True)
class PublicSet:
    """A data set, where it is and how its archives become a folder of ours.

    Attributes:
        title: What it is, in a line.
        files: What to download.
        arrange: Makes the data set in its second argument from the unpacked archives in the first.
    """

    title: str
    files: tuple[RemoteFile, ...]
    arrange: Callable[[Path, Path, Progress], None]


def get_public_set(
    chosen: PublicSet, folder: Path, *, progress: Progress, wait: float = 2.0
) -> None:
    """Download a data set and put it into a new folder.

    Downloads are kept in ``<folder>.download`` until the folder is complete, so that a later call
    goes on with them.

    Args:
        chosen: One of ``PUBLIC_SETS``.
        folder: Where to; must not exist.
        progress: Called with what is being done, how much of it is, and all of it; in megabytes
            where it is downloads and archives.
        wait: See ``download``.

    Raises:
        BotvisionError: If the folder exists, the disk is too small, the network or the archives
            fail.
    """
    if folder.exists():
        raise BotvisionError(f"{folder}: already exists; choose another folder or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    downloads = folder.with_name(f"{folder.name}.download")
    _check_disk(folder, chosen, downloads)
    archives = [
        download(
            remote, downloads, progress=_megabytes(progress, f"download {remote.name}"), wait=wait
        )
        for remote in chosen.files
    ]
    with new_folder(folder) as written:
        unpacked = written.with_name("unpacked")
        unpacked.mkdir()
        for archive in archives:
            try:
                extract_into(
                    archive, unpacked, progress=_megabytes(progress, f"unpack {archive.name}")
                )
            except BotvisionError:
                archive.unlink()  # or the next call would take it for good
                raise
        chosen.arrange(unpacked, written, progress)
    shutil.rmtree(downloads)


def _check_disk(folder: Path, chosen: PublicSet, downloads: Path) -> None:
    size = sum(remote.size for remote in chosen.files)
    have = sum(path.stat().st_size for path in downloads.glob("*"))
    needed = 2 * size - have  # the archives and, about as large, what is in them
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise BotvisionError(
            f"{folder.parent}: expected {needed / 1e9:.1f} GB of free disk for the archives and "
            f"what is in them, got {free / 1e9:.1f} GB"
        )


def _megabytes(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(f"{what}, MB", done // 10**6, -(-total // 10**6))


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
    """Masks whose pixels are numbers of pedestrians, 0 elsewhere, become run lengths."""
    images = sorted(_expected(unpacked / "PennFudanPed" / "PNGImages").glob("*.png"))
    read = []
    for number, image in enumerate(images, start=1):
        path = _expected(unpacked / "PennFudanPed" / "PedMasks" / f"{image.stem}_mask.png")
        numbers = read_numbers(path)
        annotations = [
            mask_annotation(numbers == value, category_id=1)
            for value in np.unique(numbers)
            if value
        ]
        height, width = numbers.shape
        read.append(CocoImage(image, width, height, annotations))
        progress("read masks", number, len(images))
    write_coco(
        folder,
        {"train": read[:-_PENN_FUDAN_VALIDATION], "val": read[-_PENN_FUDAN_VALIDATION:]},
        [{"id": 1, "name": "pedestrian"}],
        progress=lambda done, total: progress("write images", done, total),
    )


def _arrange_cifar10(unpacked: Path, folder: Path, progress: Progress) -> None:
    """The version for C programs: records of a class and 32 x 32 pixels, with nothing to run."""
    source = _expected(unpacked / "cifar-10-batches-bin")
    batches = [("train", f"data_batch_{number}.bin") for number in range(1, 6)]
    batches.append(("val", "test_batch.bin"))
    total = sum(_expected(source / name).stat().st_size for _, name in batches) // _CIFAR10_RECORD
    for split in ("train", "val"):
        for name in CIFAR10_CLASSES:
            (folder / split / name).mkdir(parents=True)
    done = 0
    for split, name in batches:
        content = np.fromfile(source / name, np.uint8)
        if len(content) % _CIFAR10_RECORD or (content[::_CIFAR10_RECORD] > 9).any():
            raise BotvisionError(f"{name}: expected records of a class from 0 to 9 and an image")
        for record in content.reshape(-1, _CIFAR10_RECORD):
            pixels = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            target = folder / split / CIFAR10_CLASSES[record[0]] / f"{done:05d}.png"
            Image.fromarray(pixels).save(target)
            done += 1
            progress("write images", done, total)


_COCO = "http://images.cocodataset.org"  # it has no certificate; the checksums stand in for one
# COCO's and CIFAR-10's SHA-256 are those of TensorFlow Datasets (url_checksums/coco.txt and
# cifar10.txt), Imagenette's MD5 that of torchvision 0.29. No one has published Penn-Fudan's:
# its size and the checksums inside the archive have to do.
PUBLIC_SETS = {
    "coco": PublicSet(
        "COCO 2017: 118,287 training and 5,000 validation images, 80 classes, boxes and masks",
        (
            RemoteFile(
                f"{_COCO}/annotations/annotations_trainval2017.zip",
                252_907_541,
                "sha256",
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ),
            RemoteFile(
                f"{_COCO}/zips/val2017.zip",
                815_585_330,
                "sha256",
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
            RemoteFile(
                f"{_COCO}/zips/train2017.zip",
                19_336_861_798,
                "sha256",
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
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
                "sha256",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
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
                "md5",
                "3df6f0d01a2c9592104656642f5e78a3",
            ),
        ),
        _move("imagenette2-320/train", "imagenette2-320/val"),
    ),
}
