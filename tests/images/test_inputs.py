"""Accepted predictor inputs: an image gives the same pixels whichever way it is handed over."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.images.inputs import to_rgb

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def pixels(image):
    found = to_rgb(image)
    assert isinstance(found, Image.Image)
    assert found.mode == "RGB"
    return np.asarray(found)


def palette_with_alpha():
    image = Image.fromarray(PIXELS).quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


def of_mode(mode):
    if mode == "I;16":
        return Image.fromarray(RNG.integers(0, 2**16, (6, 9), dtype=np.uint16))
    if mode == "P":
        return palette_with_alpha()
    if mode in ("1", "L"):
        return Image.fromarray(GRAY).convert(mode)
    return Image.fromarray(PIXELS).convert(mode)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *(("RGB", "a.png"), ("L", "a.png"), ("1", "a.png"), ("1", "a.tif")),
        *(("I;16", "a.png"), ("I;16", "a.tif"), ("P", "a.png"), ("L", "a.gif")),
        *(("RGBA", "a.png"), ("LA", "a.png"), ("CMYK", "a.jpg"), ("CMYK", "a.tif")),
        *(("YCbCr", "a.jpg"), ("LAB", "a.tif")),
    ],
)
def test_a_file_and_the_image_opened_from_it_are_the_same(mode, name, tmp_path):
    path = tmp_path / name
    of_mode(mode).save(path)
    expected = np.asarray(read_image(path))
    assert np.array_equal(pixels(path), expected)
    assert np.array_equal(pixels(str(path)), expected)
    with Image.open(path) as image:
        assert np.array_equal(pixels(image), expected)
    with Image.open(path) as image:
        image.load()
        assert np.array_equal(pixels(image), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_to_both(kind, orientation, tmp_path):
    path = tmp_path / "a"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(path, kind, exif=exif)
    expected = np.asarray(read_image(path))
    assert expected.shape[:2] == ((9, 6) if orientation > 4 else (6, 9))
    with Image.open(path) as image:
        assert np.array_equal(pixels(image), expected)
    if kind == "PNG":
        turned = {
            1: PIXELS,
            2: PIXELS[:, ::-1],
            3: PIXELS[::-1, ::-1],
            4: PIXELS[::-1],
            5: PIXELS.transpose(1, 0, 2),
            6: np.rot90(PIXELS, -1),
            7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(PIXELS),
        }
        assert np.array_equal(expected, turned[orientation])


def test_16_bits_are_scaled():
    values = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    expected = np.array([0, 1, 1, 128, 255])
    assert (pixels(Image.fromarray(values))[0] == expected[:, None]).all()
    assert (pixels(values)[0] == expected[:, None]).all()


def test_32_bits_are_refused():
    for mode in ("I", "F"):
        with pytest.raises(BotvisionError, match="image: expected 8 or 16 bits per channel"):
            to_rgb(Image.new(mode, (4, 4)))


def test_the_image_handed_over_stays_as_it_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        to_rgb(image)
        assert image.size == (9, 6)
        assert image.getexif()[0x0112] == 6
        assert np.array_equal(np.asarray(image), PIXELS)
    palette = palette_with_alpha()
    to_rgb(palette)
    assert palette.mode == "P"
    assert "transparency" in palette.info


def test_what_is_returned_shares_nothing_with_what_was_handed_over():
    for given in (PIXELS.copy(), Image.fromarray(PIXELS), torch.from_numpy(PIXELS.copy())):
        kept = given.permute(2, 0, 1) if isinstance(given, torch.Tensor) else given
        found = to_rgb(kept)
        found.paste((1, 2, 3), (0, 0, 9, 6))
        assert np.array_equal(np.asarray(given), PIXELS)


def as_float(array, dtype):
    return (array / 255).astype(dtype)


@pytest.mark.parametrize(
    "array",
    [
        PIXELS,
        PIXELS.astype(np.uint16) * 257,
        *(as_float(PIXELS, dtype) for dtype in (np.float16, np.float32, np.float64)),
        np.asarray(Image.fromarray(PIXELS)),
        np.ascontiguousarray(PIXELS[..., ::-1])[..., ::-1],
        np.asfortranarray(PIXELS),
        PIXELS.astype(np.uint16).astype(">u2") * 257,
    ],
    ids=["uint8", "uint16", "half", "float", "double", "read only", "BGR", "Fortran", "big endian"],
)
def test_arrays(array):
    assert np.array_equal(pixels(array), PIXELS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_gray_arrays(dtype):
    factor = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    gray = (GRAY * np.float64(factor)).astype(dtype)
    expected = np.repeat(GRAY[..., None], 3, 2)
    assert np.array_equal(pixels(gray), expected)
    assert np.array_equal(pixels(gray[..., None]), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_tensors(dtype):
    tensor = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)
    if dtype == "uint16":
        tensor = torch.from_numpy(PIXELS.astype(np.uint16) * 257).permute(2, 0, 1)
    elif dtype != "uint8":
        tensor = (tensor.double() / 255).to(getattr(torch, dtype))
    assert np.array_equal(pixels(tensor), PIXELS)
    if dtype.startswith("float"):
        assert np.array_equal(pixels(tensor.requires_grad_()), PIXELS)


def test_a_gray_and_a_bfloat16_tensor():
    gray = torch.from_numpy(GRAY.copy())[None]
    assert np.array_equal(pixels(gray), np.repeat(GRAY[..., None], 3, 2))
    half = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.bfloat16).reshape(1, 1, 4)
    assert pixels(half)[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize("shape", [(3,), (4, 4, 2), (4, 4, 4), (3, 8, 9), (1, 4, 4, 3), ()])
def test_array_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"expected an array \[H, W\], \[H, W, 1\] or") as raised:
        to_rgb(np.zeros(shape, np.uint8))
    assert str(raised.value).endswith(f"got {shape}")


@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8), (4, 8, 8), (8, 8, 3), (1, 3, 8, 8), ()])
def test_tensor_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"expected a tensor \[1 or 3, H, W\], got") as raised:
        to_rgb(torch.zeros(shape))
    assert str(raised.value).endswith(f"got {shape}")


@pytest.mark.parametrize("image", [np.zeros((0, 4, 3), np.uint8), torch.zeros(3, 4, 0)])
def test_no_pixel(image):
    with pytest.raises(ValueError, match="expected at least one pixel"):
        to_rgb(image)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint32, bool, np.complex64])
def test_array_of_another_dtype(dtype):
    expected = f"expected uint8, uint16 or float values, got {np.dtype(dtype)}"
    with pytest.raises(ValueError, match=expected):
        to_rgb(np.zeros((4, 4, 3), dtype))
    with pytest.raises(ValueError, match=expected):
        to_rgb(torch.from_numpy(np.zeros((3, 4, 4), dtype)))


@pytest.mark.parametrize(
    ("value", "got"), [(1.5, "0 to 1.5"), (-0.1, "-0.1 to 0"), (255.0, "0 to 255"), (np.inf, "inf")]
)
def test_floats_out_of_range(value, got):
    array = np.zeros((4, 4, 3), np.float32)
    array[1, 2, 0] = value
    for image in (array, torch.from_numpy(array).permute(2, 0, 1)):
        with pytest.raises(ValueError, match=rf"expected float values in 0\.\.1, got .*{got}"):
            to_rgb(image)


def test_nan():
    with pytest.raises(ValueError, match=r"expected float values in 0\.\.1, got nan"):
        to_rgb(np.full((4, 4, 3), np.nan))


@pytest.mark.parametrize("image", [None, 3, b"bytes", [[0, 1]], {"a": 1}], ids=repr)
def test_another_type(image):
    kind = type(image).__name__
    with pytest.raises(TypeError, match=rf"expected a path, .* got builtins\.{kind}$"):
        to_rgb(image)


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(BotvisionError, match=r"a\.png: expected an image"):
        to_rgb(tmp_path / "a.png")
    with pytest.raises(BotvisionError, match=r"b\.png: no such image"):
        to_rgb(tmp_path / "b.png")


def test_an_image_that_is_truncated(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:-80])
    with (
        Image.open(path) as image,
        pytest.raises(BotvisionError, match=r"image: cannot be decoded .*truncated"),
    ):
        to_rgb(image)


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLORS = Image.fromarray(np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1))
OPAQUE = Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (16, 16), 255)])


def sixteen_bits(mode, kind):
    return Image.frombytes(mode, (16, 16), (RAMP.astype(np.uint16) * 257).astype(kind).tobytes())


def graymap(most):
    values = RAMP.astype(np.uint32) * most // 255
    return Image.open(io.BytesIO(b"P5 16 16 %d\n" % most + values.astype(">u2").tobytes()))


def with_transparency(image, value):
    image.info["transparency"] = value
    return image


# Each image, and how far a value may be from RAMP or COLORS; None: refused.
ANY_MODE = {
    "1": (lambda: Image.fromarray(RAMP).convert("1"), 255),
    "L": (lambda: Image.fromarray(RAMP), 0),
    "L, bytes": (lambda: with_transparency(Image.fromarray(RAMP), bytes(256)), 0),
    "LA": (lambda: OPAQUE, 0),
    "La": (lambda: OPAQUE.convert("La"), 0),
    "P": (lambda: Image.fromarray(RAMP).convert("P"), 0),
    "P, bytes": (lambda: with_transparency(Image.fromarray(RAMP).convert("P"), bytes(256)), 0),
    "P, index": (lambda: with_transparency(Image.fromarray(RAMP).convert("P"), 7), 0),
    "PA": (lambda: Image.fromarray(RAMP).convert("P").convert("PA"), 0),
    "RGB": (lambda: COLORS, 0),
    "RGB, color": (lambda: with_transparency(COLORS.copy(), (0, 0, 0)), 0),
    "RGBA": (lambda: COLORS.convert("RGBA"), 0),
    "RGBa": (lambda: COLORS.convert("RGBA").convert("RGBa"), 0),
    "RGBX": (lambda: COLORS.convert("RGBX"), 0),
    "CMYK": (lambda: COLORS.convert("CMYK"), 0),
    "YCbCr": (lambda: COLORS.convert("YCbCr"), 4),
    "LAB": (lambda: ImageCms.applyTransform(COLORS.copy(), TO_LAB), 40),  # out of its gamut
    "HSV": (lambda: COLORS.convert("HSV"), 6),
    "I;16": (lambda: sixteen_bits("I;16", "<u2"), 0),
    "I;16L": (lambda: sixteen_bits("I;16L", "<u2"), 0),
    "I;16B": (lambda: sixteen_bits("I;16B", ">u2"), 0),
    "I;16N": (lambda: sixteen_bits("I;16N", "=u2"), 0),
    "PGM of 16 bits": (lambda: graymap(65535), 0),
    "PGM of 10 bits": (lambda: graymap(1023), 1),
    "I": (lambda: Image.fromarray(RAMP.astype(np.int32)), None),
    "F": (lambda: Image.fromarray(RAMP.astype(np.float32)), None),
}
TO_LAB = ImageCms.buildTransform(
    ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
)


@pytest.mark.parametrize("mode", ANY_MODE)
def test_any_mode(mode):
    make, tolerance = ANY_MODE[mode]
    image = make()
    before = dict(image.info)
    if tolerance is None:
        with pytest.raises(BotvisionError, match="expected 8 or 16 bits per channel, got 32") as no:
            to_rgb(image)
        assert "\n" not in str(no.value)
        return
    found = pixels(image).astype(int)
    expected = np.asarray(COLORS, int)
    if not np.ptp(found, axis=-1).any():
        expected = RAMP[:, :, None].astype(int)
    assert np.abs(found - expected).max() <= tolerance
    assert np.abs(found - expected).mean() < (128 if mode == "1" else 4)
    assert image.info == before
