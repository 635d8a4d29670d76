"""Reading images: any format and mode comes out as upright RGB, and what is none is an error."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from botvision.errors import BotvisionError
from botvision.images.decode import read_image, read_numbers, upright_size
from botvision.images.find import is_image_name

COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
# Where the color of each pixel lies in COLORS: two columns, two rows, none alike.
QUARTERS = np.repeat(np.repeat([[0, 1], [2, 3]], 20, axis=0), 24, axis=1)
IMAGE = COLORS[QUARTERS]


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("a.png", 0),
        ("a.bmp", 0),
        ("a.tif", 0),
        ("a.TIFF", 0),
        ("a.jpg", 40),
        ("a.JPEG", 40),
        ("a.webp", 40),
    ],
)
def test_formats(tmp_path, name, tolerance):
    Image.fromarray(IMAGE).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    difference = np.abs(np.asarray(image, int) - IMAGE)
    # Lossy formats blur the edges of the quarters only.
    assert np.percentile(difference, 80) <= min(tolerance, 4)
    assert is_image_name(name)


def test_the_content_tells_the_format(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(IMAGE).save(path, "PNG")
    assert np.array_equal(np.asarray(read_image(path)), IMAGE)


def test_the_file_is_closed_and_the_image_decoded(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path)
    image = read_image(path)  # an open file would be a ResourceWarning
    path.unlink()
    assert np.array_equal(np.asarray(image), IMAGE)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_gray(tmp_path, value):
    Image.new("L", (5, 4), value).save(tmp_path / "a.png")
    assert (np.asarray(read_image(tmp_path / "a.png")) == value).all()


@pytest.mark.parametrize("side", [(1, 1), (1, 300), (300, 1)], ids=str)
def test_thin_images(tmp_path, side):
    Image.new("RGB", side, (1, 2, 3)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.size == side
    assert image.getpixel((0, 0)) == (1, 2, 3)


def test_the_first_image_of_an_animation(tmp_path):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert read_image(tmp_path / "a.gif").getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("value", [0, 9, 1000])
def test_an_orientation_that_is_none(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(IMAGE).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), IMAGE)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(BotvisionError, match=tmp_path.name):
        read_image(tmp_path)


def encoded(kind):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    options = {"exif": exif} if kind in {"JPEG", "PNG", "TIFF", "WEBP"} else {}
    noise = np.random.default_rng(0).integers(0, 256, (20, 25, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF"])
def test_damaged_files_are_an_error_or_a_image(tmp_path, kind):
    # Under the suite's rule that warnings are errors, so Pillow's warnings must not leak either:
    # a program that predicts over a folder would drown in them.
    if kind == "AVIF" and kind not in Image.registered_extensions().values():
        pytest.skip("Pillow was built without AVIF")
    whole, rng = encoded(kind), random.Random(0)
    path = tmp_path / "a.jpg"
    messages = []
    for number in range(250):
        content = bytearray(whole)
        if number % 3 == 0:
            del content[rng.randrange(len(content)) :]
        else:
            reach = min(300, len(content)) if number % 2 else len(content)
            for _ in range(rng.randrange(1, 6)):
                content[rng.randrange(reach)] = rng.randrange(256)
        path.write_bytes(content)
        try:
            image = read_image(path)
        except BotvisionError as error:
            messages.append(str(error))
        else:
            assert image.mode == "RGB"
    assert len(messages) > 20
    assert all(str(path) in message and "\n" not in message for message in messages)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_that_of_the_image(tmp_path, kind, orientation):
    # Pillow gives that of a turned TIFF file upright, and those of others as they are stored.
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(IMAGE).save(tmp_path / "a", kind, exif=exif)
    assert upright_size(tmp_path / "a") == ((40, 48) if orientation > 4 else (48, 40))
    assert read_image(tmp_path / "a").size == upright_size(tmp_path / "a")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_numbers_of_a_mask_are_no_colors(tmp_path, mode):
    numbers = np.arange(256, dtype=np.uint8).reshape(8, 32)
    image = Image.fromarray(numbers).convert(mode)
    if mode == "P":
        image = Image.frombytes("P", (32, 8), numbers.tobytes())
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(tmp_path / "a.png")
    found = read_numbers(tmp_path / "a.png")
    assert found.dtype == np.uint8
    assert np.array_equal(found, numbers)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_numbers(tmp_path / "turned.png"), np.rot90(numbers, -1))


@pytest.mark.parametrize("mode", ["1", "RGB", "I;16", "LA"])
def test_numbers_of_what_is_no_mask(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "a.png")
    with pytest.raises(BotvisionError, match=rf"a\.png: expected a mask .*, got mode {mode};"):
        read_numbers(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, upright_size, read_numbers])
def test_whoever_reads_a_image_reads_no_other_formats_and_none_too_large(
    tmp_path, monkeypatch, read
):
    path = tmp_path / "a.png"
    with pytest.raises(BotvisionError, match=r"a\.png: no such image"):
        read(path)
    Image.fromarray(IMAGE).save(path, "EPS")  # Pillow would start Ghostscript for this one
    with pytest.raises(BotvisionError, match=r"a\.png: expected an image \(JPEG, PNG, .*\), got"):
        read(path)
    Image.new("L", (48, 40)).save(path)
    monkeypatch.setenv("BOTVISION_MOST_PIXELS", "1920")
    read(path)
    monkeypatch.setenv("BOTVISION_MOST_PIXELS", "1919")
    with pytest.raises(BotvisionError, match=r"at most 1,919 pixels, got 48 x 40; .*set"):
        read(path)
    path.write_bytes(path.read_bytes()[:50])
    monkeypatch.undo()
    with pytest.raises(BotvisionError, match=r"a\.png: cannot be decoded"):
        read(path)


@pytest.mark.parametrize("most", [255, 1023, 65535])
def test_pgm_of_any_depth(tmp_path, most):
    values = np.arange(most + 1)[:: max(1, most // 255)]
    numbers = values.astype(">u2" if most > 255 else "u1").tobytes()
    (tmp_path / "a.pgm").write_bytes(f"P5 {len(values)} 1 {most}\n".encode() + numbers)
    found = np.asarray(read_image(tmp_path / "a.pgm"), float)[0, :, 0]
    np.testing.assert_allclose(found, values / most * 255, atol=0.51)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bits_are_an_error(tmp_path, dtype):
    Image.fromarray(np.ones((4, 5), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(BotvisionError, match=r"a\.tif: expected 8 or 16 bits per channel, got 32"):
        read_image(tmp_path / "a.tif")


def test_the_limit_is_the_environments(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path)
    pixels = IMAGE.shape[0] * IMAGE.shape[1]
    monkeypatch.setenv("BOTVISION_MOST_PIXELS", str(pixels))
    assert read_image(path).size == IMAGE.shape[1::-1]
    monkeypatch.setenv("BOTVISION_MOST_PIXELS", str(pixels - 1))
    with pytest.raises(BotvisionError, match=rf"at most {pixels - 1:,} pixels, got 48 x 40; .*set"):
        read_image(path)


def test_the_environments_limit_may_be_beyond_pillows(tmp_path, monkeypatch):
    # For Pillow's own limit to be met by a small image, it is lowered.
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BotvisionError, match="set BOTVISION_MOST_PIXELS"):
        read_image(path)
    monkeypatch.setenv("BOTVISION_MOST_PIXELS", "5000")
    assert np.array_equal(np.asarray(read_image(path)), IMAGE)


@pytest.mark.parametrize("text", ["", "0", "-5", "1e6", "many", "²"])
def test_a_limit_that_is_none(tmp_path, monkeypatch, text):
    monkeypatch.setenv("BOTVISION_MOST_PIXELS", text)
    with pytest.raises(BotvisionError, match="BOTVISION_MOST_PIXELS: expected a number of pixels"):
        read_image(tmp_path / "a.png")
