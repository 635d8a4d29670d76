"""Rows of the fault corpus about images."""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from botvision.errors import BotvisionError
from botvision.images.decode import read_image


def png(width, height, lines=None):
    """A PNG of a few bytes that says it is as large as that; with a content of some lines."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    content = bytes(1000 if lines is None else lines * (1 + 3 * width))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def jpeg():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


BAD = {
    "row_22_zero_bytes": b"",
    "row_23_half_a_jpeg": jpeg()[: len(jpeg()) // 2],
    "row_23_jpeg_without_its_end": jpeg()[:-40],
    "row_24_text": b"This is no image.\n" * 100,
    "row_24_html": b"<!DOCTYPE html><title>404</title>",
    "row_29_bomb": png(50_000, 50_000),
    "row_29_beyond_twice_the_limit": png(20_000, 11_000),
    "row_29_beyond_the_limit": png(10_001, 10_000),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_22_23_24_29_bad_files(tmp_path, name):
    path = tmp_path / "a.jpg"
    path.write_bytes(BAD[name])
    with pytest.raises(BotvisionError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    # A bomb is told by its size, not by what is wrong with it when it is decoded.
    assert ("pixels" in str(caught.value)) == ("row_29" in name)
    assert path.read_bytes() == BAD[name]


def test_row_21_missing_file(tmp_path):
    with pytest.raises(BotvisionError, match=r"a\.jpg: no such image"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("kind", ["row_21_missing", *(n for n in BAD if "row_29" not in n)])
def test_rows_21_to_24_in_a_data_set(write, kind):
    from botvision.datasets.coco.dataset import CocoInstances

    folder = write()
    path = folder / "images" / "a.png"
    path.unlink()
    if kind in BAD:
        path.write_bytes(BAD[kind])
    data = CocoInstances(folder, "train")
    with pytest.raises(BotvisionError, match=r"a\.png"):
        _ = data[0, 0]


# Orientation n is stored such that these turns give the upright image; TIFF 6.0, page 36.
STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_row_25_exif_orientation(tmp_path, orientation, suffix):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16], upright[:16, 32:], upright[16:, :16] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    stored = np.ascontiguousarray(STORED[orientation](upright))
    Image.fromarray(stored).save(path, exif=exif, quality=95, subsampling=0)
    found = np.asarray(read_image(path), int)
    assert found.shape == upright.shape
    assert np.abs(found - upright).mean() < 5


@pytest.mark.parametrize("orientation", STORED)
def test_row_25_the_same_boxes(content, write, orientation):
    from botvision.datasets.coco.dataset import CocoInstances

    folder = write()
    upright = np.zeros((30, 40, 3), np.uint8)
    upright[5:25, 4:14] = 250  # where the one box is
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](upright))
    Image.fromarray(stored).save(folder / "images" / "a.png", exif=exif)
    image, target = CocoInstances(folder, "train")[0, 0]
    assert target["boxes"].tolist() == [[4, 5, 14, 25]]
    assert (image[:, target["masks"][0].bool()] == 250).all()
    assert (image[:, ~target["masks"][0].bool()] == 0).all()


@pytest.mark.parametrize("changes", [{"width": 41}, {"height": 29}, {"width": 30, "height": 40}])
def test_row_26_sizes_that_differ_from_the_file(content, write, changes):
    from botvision.datasets.coco.dataset import CocoInstances

    folder = write()
    content["images"][0].update(changes)
    said = content["images"][0]
    Image.new("RGB", (40, 30)).save(folder / "images" / "a.png")
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(BotvisionError) as caught:
        _ = CocoInstances(folder, "train")[0, 0]
    for word in ("instances_train.json", "image 11", "30 x 40", "a.png"):
        assert word in str(caught.value)
    assert f"expected {said['height']} x {said['width']}" in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_row_27_16_bit_grey_ramp(tmp_path, suffix, order):
    ramp = np.linspace(0, 65535, 512).round().astype(f"{order}u2")
    Image.fromarray(np.tile(ramp, (8, 1))).save(tmp_path / f"a.{suffix}")
    image = np.asarray(read_image(tmp_path / f"a.{suffix}"), int)
    assert (image[..., :1] == image).all()
    row = image[0, :, 0]
    assert len(np.unique(row)) >= 200
    assert (row[0], row[-1]) == (0, 255)
    assert (np.diff(row) >= 0).all()


QUARTERS = np.array([[0, 1], [2, 3]], np.uint8).repeat(8, 0).repeat(8, 1)


def make_cmyk():
    inks = np.array([[0, 255, 255, 0], [255, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]], np.uint8)
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)]
    return Image.fromarray(inks[QUARTERS], "CMYK"), expected, {"suffix": "jpg", "quality": 95}


def make_palette(transparency):
    image = Image.fromarray(QUARTERS).convert("P")
    image.putpalette([200, 10, 20, 10, 200, 30, 40, 50, 200, 90, 90, 90])
    expected = [(200, 10, 20), (10, 200, 30), (40, 50, 200), (90, 90, 90)]
    options = {} if transparency is None else {"transparency": transparency}
    return image, expected, {"suffix": "png", **options}


def make_la():
    gray = np.array([[10, 255], [90, 255], [170, 128], [250, 0]], np.uint8)
    return Image.fromarray(gray[QUARTERS], "LA"), [(v,) * 3 for v in gray[:, 0]], {"suffix": "png"}


def make_bits():
    expected = [(0,) * 3, (255,) * 3, (255,) * 3, (0,) * 3]
    values = np.array([0, 255, 255, 0], np.uint8)
    return Image.fromarray(values[QUARTERS]).convert("1"), expected, {"suffix": "png"}


MODES = {
    "CMYK": make_cmyk,
    "palette": lambda: make_palette(None),
    "palette, one color transparent": lambda: make_palette(1),
    "palette, alpha of each color": lambda: make_palette(bytes([255, 0, 128, 255])),
    "gray and alpha": make_la,
    "1 bit": make_bits,
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_row_28_modes(tmp_path, mode):
    image, expected, options = MODES[mode]()
    path = tmp_path / f"a.{options.pop('suffix')}"
    image.save(path, **options)
    found = read_image(path)
    assert found.mode == "RGB"
    wanted = np.array(expected)[QUARTERS]
    tolerance = 3 if path.suffix == ".jpg" else 0
    assert np.abs(np.asarray(found, int) - wanted).max() <= tolerance


# The most memory of a process counts what it was forked from: on Linux /proc has the process's own
# and lets it begin anew, at what it uses now.
MEASURE = """
import contextlib, sys, time
from pathlib import Path
from botvision.images import decode as images
from botvision.errors import BotvisionError

def most():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

if sys.argv[2] == "without the limit":
    images._MAX_PIXELS = 10**9
Path("/proc/self/clear_refs").write_text("5")
before = most()
start = time.perf_counter()
with contextlib.suppress(BotvisionError):
    images.read_image(Path(sys.argv[1]))
print(time.perf_counter() - start, (most() - before) / 1024)
"""


def measure(path, kind):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", MEASURE, str(path), kind],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return map(float, done.stdout.split())


ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


@ONLY_LINUX
@pytest.mark.parametrize("side", [10_001, 12_000, 50_000])
def test_row_29_a_bomb_costs_neither_time_nor_memory(tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(png(side, side))
    seconds, megabytes = measure(path, "as it is")
    assert seconds < 1
    assert megabytes < 20


@ONLY_LINUX
def test_row_29_the_memory_of_a_bomb_would_be_seen(tmp_path):
    path = tmp_path / "a.png"
    # Without our limit its lines are decoded until there are no more: 4 bytes a pixel.
    path.write_bytes(png(10_001, 10_000, lines=3_000))
    _, megabytes = measure(path, "without the limit")
    assert megabytes > 80


@pytest.mark.parametrize("kind", ["..", "absolute", "link to a file", "link to a folder", "folder"])
def test_row_30_images_outside_the_folder(content, write, tmp_path, kind):
    from botvision.datasets.coco.dataset import CocoInstances

    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (40, 30)).save(outside / "a.png")
    folder = write()
    record = content["images"][0]
    if kind == "..":
        record["file_name"] = "../../outside/a.png"
    elif kind == "absolute":
        record["file_name"] = str(outside / "a.png")
    elif kind == "link to a file":
        record["file_name"] = "link.png"
        (folder / "images" / "link.png").symlink_to(outside / "a.png")
    elif kind == "link to a folder":
        record["file_name"] = "link/a.png"
        (folder / "images" / "link").symlink_to(outside)
    else:
        # A sibling whose name begins like the image folder's.
        record["file_name"] = "../images2/a.png"
        (folder / "images2").mkdir()
        Image.new("RGB", (40, 30)).save(folder / "images2" / "a.png")
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content))
    data = CocoInstances(folder, "train")
    with pytest.raises(BotvisionError) as caught:
        _ = data[0, 0]
    for word in ("instances_train.json", "image 11", "file_name", record["file_name"]):
        assert word in str(caught.value)


def test_row_30_a_linked_image_folder_is_the_users_own(write, tmp_path):
    from botvision.datasets.coco.dataset import CocoInstances

    folder = write()
    (folder / "images").rename(tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    assert CocoInstances(folder, "train")[0, 0][0].shape == (3, 30, 40)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (4000, 7), (7, 4000)], ids=str)
def test_row_41_extreme_sizes_are_read_and_augmented(content, write, size):
    from botvision.datasets.coco.augmentation import training_transform
    from botvision.datasets.coco.dataset import CocoInstances

    width, height = size
    content["images"][0].update(width=width, height=height)
    content["annotations"][0]["bbox"] = [0, 0, width, height]
    data = CocoInstances(write(), "train", transform=training_transform(128))
    for epoch in range(4):
        image, target = data[epoch, 0]
        assert image.shape == (3, 128, 128)
        assert target["labels"].tolist() == [2]
