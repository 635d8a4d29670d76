"""Captions and sheets that could not be read, or not be written: scripts, edges, large images."""

import numpy as np
import pytest
import torch
from PIL import Image

from botvision.images import captions
from botvision.images.captions import caption_font, fitted, readable, text_size
from botvision.images.draw import LARGEST_CELL, draw_instances, mosaic, save_evaluation
from botvision.images.figures import plain_text
from botvision.tasks.classification.writer import BLACK, captioned


@pytest.fixture
def no_system_fonts(monkeypatch):
    for cached in (captions._file_with, captions._glyphs):
        cached.cache_clear()
    monkeypatch.setattr(captions.font_manager.fontManager, "ttflist", [])
    yield
    captions._file_with.cache_clear()


def drawn(caption, *, box=(100, 100, 200, 200), size=(400, 600)):
    image = torch.full((3, *size), 90, dtype=torch.uint8)
    boxes = torch.tensor([box], dtype=torch.float32)
    return draw_instances(image, boxes, [1], [caption])


def black(image):
    """Rows and columns of the letters."""
    rows, columns = np.nonzero((np.asarray(image) < 40).all(-1))
    return rows, columns


@pytest.mark.parametrize("name", ["птица", "κιθάρα", "żółć", "מלפפון", "ワシ", "हिन्दी"])
def test_a_name_that_can_be_drawn_is_drawn_in_its_own_letters(name):
    shown = readable(f"{name} 0.91")
    assert shown.endswith("0.91")
    if name.isascii() or name in ("птица", "κιθάρα", "żółć"):
        assert shown == f"{name} 0.91"
    assert drawn(shown) == drawn(f"{name} 0.91")


@pytest.mark.parametrize(("one", "other"), [("鸟", "猫"), ("독수리", "독수라"), ("🦉", "🦩")])
def test_names_without_glyphs_do_not_look_alike(one, other, no_system_fonts):
    assert readable(f"{one} 0.5").startswith("U+")
    assert drawn(one) != drawn(other)
    assert plain_text(one) != plain_text(other)
    assert plain_text(one).isascii()


def test_a_system_font_with_the_letters_is_found(tmp_path, monkeypatch):
    # A font whose letters ours lacks; here the same file, said to have them.
    entry = type("Entry", (), {"fname": str(tmp_path / "Some.ttf")})
    monkeypatch.setattr(captions.font_manager.fontManager, "ttflist", [entry])
    ours = captions._glyphs(captions._FONT)
    monkeypatch.setattr(
        captions, "_glyphs", lambda file: ours if file == captions._FONT else ours | {ord("鸟")}
    )
    captions._file_with.cache_clear()
    assert captions._file_with(frozenset({ord("鸟")})) == entry.fname
    assert readable("鸟 0.5") == "鸟 0.5"
    captions._file_with.cache_clear()


@pytest.mark.parametrize(
    "name", ["", " ", "two\nlines", "tab\there", "\x00\x1b[31m", "\ud800", "a\u200bb"]
)
def test_any_text_is_one_line(name):
    shown = readable(name)
    assert shown.isprintable()
    assert "  " not in shown
    drawn(name)


@pytest.mark.parametrize("box", [(560, 200, 598, 300), (590, 0, 600, 9), (0, 395, 9, 400)], ids=str)
def test_a_caption_at_an_edge_is_whole(box):
    rows, columns = black(drawn("pedestrian 0.87"))
    at_edge = black(drawn("pedestrian 0.87", box=box))
    assert len(at_edge[0]) == len(rows)
    assert np.ptp(at_edge[1]) == np.ptp(columns)


def test_the_middle_of_a_long_name_is_cut():
    font = caption_font("a")
    name = "a very long name of a class " * 400
    shown = fitted(f"{name}0.87", font, 300)
    assert font.getlength(shown) <= 300
    assert shown.startswith("a very long")
    assert shown.endswith("0.87")
    _, columns = black(drawn(f"{name}0.87"))
    assert columns.max() < 600
    assert fitted("ab", font, 0) == "…"


def test_text_and_lines_grow_with_the_image():
    photo = drawn("pedestrian 0.87", box=(500, 500, 2500, 2500), size=(3000, 4000))
    shown = photo.copy()
    shown.thumbnail((640, 640))
    rows, _ = black(shown)
    assert np.ptp(rows) >= 9
    line = np.asarray(photo)[1500, 480:560]
    assert (line != 90).any(-1).sum() >= 10
    # Text on a strip leaves room for the image.
    assert text_size((16_500, 300)) <= 300 / 8
    assert text_size((640, 480)) == text_size((100, 4)) == 14


@pytest.mark.parametrize("size", [(3, 16_500), (2000, 16_500), (16_500, 2)], ids=str)
def test_sheets_of_large_images_are_small(size, tmp_path):
    image = torch.full((3, *size), 90, dtype=torch.uint8)
    cell = draw_instances(
        image, torch.tensor([[0.0, 0, 99, 99]]), [1], ["cat"], max_side=LARGEST_CELL
    )
    assert max(cell.size) <= LARGEST_CELL
    sheet = mosaic([cell] * 16, columns=4)
    save_evaluation(sheet, tmp_path, 1)
    with Image.open(tmp_path / "val_epoch001.jpg") as written:
        assert max(written.size) <= 4 * (LARGEST_CELL + 4)


def test_cells_of_a_classifier_are_small_and_their_text_is_readable(no_system_fonts):
    channels = {"mean": torch.full((3,), 0.5), "std": torch.full((3,), 0.5)}
    cells = [
        captioned(torch.zeros(3, 1024, 1024), [(name, BLACK)], **channels)
        for name in ("птица", "鸟", "猫")
    ]
    assert all(cell.width == LARGEST_CELL for cell in cells)
    assert len({cell.tobytes() for cell in cells}) == 3
