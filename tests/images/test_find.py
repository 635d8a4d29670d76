"""Finding images: every format that is read, no leftovers, and what is left out is counted."""

import pytest
from PIL import Image

from botvision.errors import BotvisionError
from botvision.images.decode import read_image
from botvision.images.find import IMAGE_SUFFIXES, files_below, find_images, is_leftover


def test_one_image_is_found(tmp_path):
    path = tmp_path / "a.image"  # named by the user, so any suffix will do
    path.touch()
    assert find_images(path).paths == [path]


def test_images_of_a_folder_in_sorted_order(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", "z/c.webp", "c/d.tiff", "c/e.json", "f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path).paths]
    assert found == ["a.JPG", "b.png", "c/d.tiff", "z/c.webp"]


def test_images_are_sorted_whatever_the_file_system_does(tmp_path):
    for number in reversed(range(40)):
        (tmp_path / f"{number * 7 % 40:02}.png").touch()
    assert [path.name for path in find_images(tmp_path).paths] == [f"{n:02}.png" for n in range(40)]


def test_folders_named_like_images_are_none(tmp_path):
    (tmp_path / "a.png").mkdir()
    (tmp_path / "a.png" / "b.png").touch()
    assert find_images(tmp_path).paths == [tmp_path / "a.png" / "b.png"]


def test_nothing_is_found(tmp_path):
    with pytest.raises(BotvisionError, match=r"holds no images \(\.apng, \.avif"):
        find_images(tmp_path)
    with pytest.raises(BotvisionError, match="none: no such file or folder"):
        find_images(tmp_path / "none")


def test_what_is_left_out_is_counted(tmp_path):
    for name in (
        *("a.png", "phone.heic", "phone2.HEIC", "notes.txt", "README"),
        *("._a.png", ".DS_Store", "Thumbs.db", "__MACOSX/a.png", "b/@eaDir/a.jpg"),
        "b/.ipynb_checkpoints/a-checkpoint.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images(tmp_path)
    assert [path.name for path in found.paths] == ["a.png"]
    assert found.left_out == {
        "hidden or system files": 6,
        ".heic (no image format)": 2,
        ".txt (no image format)": 1,
        "without a suffix (no image format)": 1,
    }
    assert found.note().startswith("left out: 6 hidden or system files, 2 .heic")
    (tmp_path / "a.png").unlink()
    with pytest.raises(BotvisionError, match=r"holds no images .*2 \.heic"):
        find_images(tmp_path)


def test_a_hidden_folder_above_hides_nothing(tmp_path):
    folder = tmp_path / ".cache" / "photos"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    assert find_images(folder).paths == list(files_below(folder)) == [folder / "a.png"]
    assert is_leftover(".cache/photos/a.png")


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_that_is_found_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix.upper()}"
    Image.init()
    form = Image.EXTENSION.get(suffix, "JPEG2000")
    Image.new("L" if suffix in (".pgm", ".pbm") else "RGB", (8, 6)).save(path, form)
    assert read_image(path).size == (8, 6)
    assert find_images(tmp_path).paths == [path]
