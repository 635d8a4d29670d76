"""Finding a split's images and their classes: as timm does, but for what would go wrong."""

import io
import shutil
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from botvision.datasets.folders.splits import find_split, read_split
from botvision.errors import BotvisionError


def write(path, color=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), color).save(path)


def png(color):
    content = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(content, "PNG")
    return content.getvalue()


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def read(path):
    images = read_split(path).images
    return {
        name: (class_name, np.asarray(images.read(name)).tobytes())
        for name, class_name in class_names(path).items()
    }


def class_names(path):
    split = read_split(path)
    names = (split.classes[label] for label in split.labels)
    return dict(zip(split.names, names, strict=True))


def error(function, *arguments):
    with pytest.raises(BotvisionError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("asked", "there"),
    [("train", "train"), ("train", "training"), ("val", "validation"), ("val", "test"), ("a", "a")],
)
def test_splits_are_found_by_their_usual_names(tmp_path, asked, there):
    (tmp_path / there).mkdir()
    assert find_split(str(tmp_path), asked) == tmp_path / there


def test_the_name_that_was_asked_for_comes_first(tmp_path):
    for name in ("test", "val", "validation"):
        (tmp_path / name).mkdir()
    assert find_split(str(tmp_path), "val") == tmp_path / "val"
    assert find_split(str(tmp_path), "test") == tmp_path / "test"


@pytest.mark.parametrize("name", ["train.tar", "cifar10-subset-train.tar", "Images_TRAIN_2.tar"])
def test_archives_are_found_by_a_word_of_their_name(tmp_path, name):
    for other in ("retrained.tar", "carnival.tar", name):
        (tmp_path / other).touch()
    assert find_split(str(tmp_path), "train") == tmp_path / name
    assert "no split 'val'" in error(find_split, str(tmp_path), "val")


def test_what_cannot_be_a_split(tmp_path):
    (tmp_path / "a-train.tar").touch()
    (tmp_path / "b-train.tar").touch()
    assert "a-train.tar, b-train.tar" in error(find_split, str(tmp_path), "train")
    inside = error(find_split, str(tmp_path / "a-train.tar"), "train")
    assert inside.endswith(f"give its folder {tmp_path}")
    assert "expected a folder" in error(find_split, str(tmp_path / "none"), "train")
    assert "are not read" in error(find_split, "tfds/cifar10", "train")


def test_a_tar_file_is_what_its_folder_is(shapes, archives):
    assert read(shapes / "val") == read(archives / "shapes-TEST.tar")
    assert len(read(shapes / "val")) == 36


def test_folders_are_what_they_are_to_timm(tmp_path):
    for number, name in enumerate(("n10", "n9", "Ox", "ant")):
        for image in range(number + 1):
            write(tmp_path / name / f"{image}.png", (40 * number, 0, image))
    found = read_split(tmp_path)
    theirs = ReaderImageFolder(str(tmp_path))
    assert list(found.classes) == list(theirs.class_to_idx)
    expected = {file: list(theirs.class_to_idx)[place] for file, place in theirs.samples}
    found = {str(tmp_path / name): label for name, label in class_names(tmp_path).items()}
    assert found == expected


@pytest.mark.parametrize("form", ["tar of tars", "folder of tars"])
def test_tars_of_classes_are_what_they_are_to_timm(tmp_path, form):
    path = tmp_path / "train"
    path.mkdir()
    for name, count in (("n02", 3), ("n01", 2)):
        with tarfile.open(path / f"{name}.tar", "w") as archive:
            for number in range(count):
                add(archive, f"{name}_{number}.png", png((50 * number, 10 * count, 0)))
    if form == "tar of tars":
        with tarfile.open(tmp_path / "train.tar", "w") as archive:
            for child in sorted(path.iterdir()):
                archive.add(child, arcname=child.name)
        path = tmp_path / "train.tar"
    theirs = ReaderImageInTar(str(path))
    with warnings.catch_warnings(action="ignore"):  # timm leaves its files open
        expected = {}
        for index in range(len(theirs)):
            file, place = theirs[index]
            name = theirs.class_idx_to_name[int(place)]
            content = np.asarray(Image.open(file).convert("RGB")).tobytes()
            expected[f"{name}/{theirs.filename(index)}"] = (name, content)
        del theirs, file
    assert read(path) == expected
    assert len(expected) == 5


def test_classes_that_timm_leaves_to_chance_are_in_one_order(tmp_path):
    for name in ("01", "1", "2"):
        write(tmp_path / name / "a.png")
    assert read_split(tmp_path).classes == ("01", "1", "2")


def test_all_suffixes_links_and_nothing_hidden(tmp_path):
    write(tmp_path / "data" / "cat" / "a.webp")
    write(tmp_path / "data" / "cat" / "b.TIFF")
    write(tmp_path / "data" / "cat" / ".ipynb_checkpoints" / "a.png")
    write(tmp_path / "data" / ".trash" / "c.png")
    (tmp_path / "data" / "cat" / "notes.txt").touch()
    write(tmp_path / "elsewhere" / "d.png")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere")
    assert class_names(tmp_path / "data") == {
        "cat/a.webp": "cat",
        "cat/b.TIFF": "cat",
        "dog/d.png": "dog",
    }


def test_an_empty_class_folder_is_named(shapes, tmp_path):
    shutil.copytree(shapes / "val", tmp_path / "val")
    (tmp_path / "val" / "triangle").mkdir()
    (tmp_path / "val" / "triangle" / "readme.txt").touch()
    assert str(tmp_path / "val" / "triangle") in error(read_split, tmp_path / "val")


def test_no_images_and_images_in_no_folder(tmp_path):
    (tmp_path / "train").mkdir()
    assert "holds no images" in error(read_split, tmp_path / "train")
    write(tmp_path / "train" / "cat" / "a.png")
    write(tmp_path / "train" / "stray.png")
    assert "stray.png" in error(read_split, tmp_path / "train")


@pytest.mark.parametrize("damage", ["cut", "cut between", "compressed", "no tar", "empty"])
def test_archives_that_cannot_be_read(archives, tmp_path, damage):
    path, whole = tmp_path / "train.tar", archives / "shapes-train.tar"
    content = whole.read_bytes()
    with tarfile.open(whole) as archive:
        middle = archive.getmembers()[60].offset  # a header begins here
    if damage == "compressed":
        with tarfile.open(path, "w:gz") as archive:
            add(archive, "cat/a.png", png((1, 2, 3)))
    elif damage == "no tar":
        path.write_bytes(b"x" * 3000)
    else:
        end = {"cut": middle + 700, "cut between": middle, "empty": 0}
        path.write_bytes(content[: end[damage]])
    assert str(path) in error(read_split, path)


def test_a_damaged_image_is_named_with_its_archive(tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        add(archive, "cat/a.png", png((1, 2, 3))[:40])
    images = read_split(tmp_path / "train.tar").images
    assert f"{tmp_path / 'train.tar'}: cat/a.png" in error(images.read, "cat/a.png")
    (tmp_path / "train.tar").unlink()
    assert str(tmp_path / "train.tar") in error(images.read, "cat/a.png")
