"""Public sets as small copies of their archives, from a server on this machine."""

import dataclasses
import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from botvision.datasets import download
from botvision.datasets.download import PUBLIC_SETS, check_imagenet, get_public_set
from botvision.errors import BotvisionError

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A function of a set's name and of archives by name: the set as it comes from here."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def serve(name, **archives):
            files = []
            for remote in PUBLIC_SETS[name].files:
                content = archives.get(remote.name.partition(".")[0].replace("-", "_"))
                (folder / remote.name).write_bytes(content)
                algorithm = remote.checksum.partition(":")[0]
                digest = algorithm and hashlib.new(algorithm, content).hexdigest()
                checksum = algorithm and f"{algorithm}:{digest}"
                url = f"http://127.0.0.1:{server.server_address[1]}/{remote.name}"
                files.append(
                    dataclasses.replace(remote, url=url, size=len(content), checksum=checksum)
                )
            return dataclasses.replace(PUBLIC_SETS[name], files=tuple(files))

        yield serve
        server.shutdown()
        thread.join()


def zipped(files):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return memory.getvalue()


def tarred(files):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return memory.getvalue()


def png(pixels):
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "png")
    return memory.getvalue()


def get(chosen, folder):
    seen = []
    get_public_set(chosen, folder, progress=lambda *now: seen.append(now))
    assert all(done <= total for _, done, total in seen)
    return seen


@pytest.fixture
def penn_fudan(monkeypatch):
    """Masks by name of image, and the archive's bytes."""
    monkeypatch.setattr(download, "_PENN_FUDAN_VALIDATION", 2)
    rng = np.random.default_rng(0)
    masks, files = {}, {}
    for number in range(5):
        mask = np.zeros((40, 50), np.uint8)
        for person in range(1, number + 1):
            mask[5 + person : 30, 8 * person : 8 * person + 7] = person
        masks[f"FudanPed{number:05d}.png"] = mask
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        files[f"PennFudanPed/PNGImages/FudanPed{number:05d}.png"] = png(pixels)
        files[f"PennFudanPed/PedMasks/FudanPed{number:05d}_mask.png"] = png(mask)
    files["PennFudanPed/readme.txt"] = b"text"
    return masks, zipped(files)


def test_penn_fudan(served, penn_fudan, tmp_path):
    masks, archive = penn_fudan
    get(served("penn-fudan", PennFudanPed=archive), tmp_path / "out")
    found = {}
    for split in ("train", "val"):
        content = json.loads((tmp_path / "out" / f"annotations/instances_{split}.json").read_text())
        assert content["categories"] == [{"id": 1, "name": "pedestrian"}]
        for image in content["images"]:
            own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            assert (tmp_path / "out" / "images" / image["file_name"]).is_file()
            found[image["file_name"]] = own
    assert [name.partition("/")[0] for name in found] == ["train"] * 3 + ["val"] * 2
    assert [name.rpartition("/")[2] for name in found] == list(masks)
    for own, mask in zip(found.values(), masks.values(), strict=True):
        assert len(own) == mask.max()
        for person, each in enumerate(own, start=1):
            decoded = coco_mask.decode(each["segmentation"])
            np.testing.assert_array_equal(decoded, mask == person)
            y, x = np.nonzero(mask == person)
            assert each["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert each["area"] == len(x)
    # Nothing else is left behind.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "served"]


def test_cifar10(served, tmp_path):
    rng = np.random.default_rng(0)
    files, truth = {}, []
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for name in names:
        pixels = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, 10, 4, dtype=np.uint8)
        truth += [(name == names[-1], *each) for each in zip(labels, pixels, strict=True)]
        planes = pixels.transpose(0, 3, 1, 2).reshape(4, -1)
        files[f"cifar-10-batches-bin/{name}"] = np.c_[labels, planes].tobytes()
    get(served("cifar10", cifar_10_binary=tarred(files)), tmp_path / "out")
    found = {p.stem: p for p in (tmp_path / "out").rglob("*.png")}
    assert len(found) == len(truth) == 24
    for path, (is_test, label, pixels) in zip(
        (found[stem] for stem in sorted(found)), truth, strict=True
    ):
        split, name = path.parts[-3:-1]
        assert (split, name) == ("val" if is_test else "train", CIFAR10_CLASSES[label])
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    for split in ("train", "val"):
        folders = sorted(p.name for p in (tmp_path / "out" / split).iterdir())
        assert folders == sorted(CIFAR10_CLASSES)


@pytest.mark.parametrize("content", [bytes(3072), bytes([10]) + bytes(3072)])
def test_other_records_than_cifar10s(served, tmp_path, content):
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files = {f"cifar-10-batches-bin/{name}.bin": content for name in names}
    with pytest.raises(BotvisionError, match=r"data_batch_1\.bin: expected records"):
        get(served("cifar10", cifar_10_binary=tarred(files)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_coco(served, tmp_path):
    from botvision.datasets.layouts import find_coco_split

    content = json.dumps({"images": [{"id": 1, "file_name": "1.jpg"}]}).encode()
    names = ("instances_train2017.json", "instances_val2017.json", "captions_val2017.json")
    chosen = served(
        "coco",
        annotations_trainval2017=zipped({f"annotations/{name}": content for name in names}),
        train2017=zipped({"train2017/1.jpg": b"train"}),
        val2017=zipped({"val2017/1.jpg": b"val"}),
    )
    get(chosen, tmp_path / "coco")
    for split in ("train", "val"):
        found = find_coco_split(tmp_path / "coco", split)
        assert found.annotations.name == f"instances_{split}2017.json"
        assert (found.images / "1.jpg").read_text() == split


def test_imagenette(served, tmp_path):
    names = ("train/n01440764/a.JPEG", "val/n01440764/b.JPEG", "noisy_imagenette.csv")
    archive = tarred({f"imagenette2-320/{name}": name.encode() for name in names})
    get(served("imagenette", imagenette2_320=archive), tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert found == set(names[:2])


def test_a_folder_that_exists(served, penn_fudan, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BotvisionError, match="already exists"):
        get(served("penn-fudan", PennFudanPed=penn_fudan[1]), tmp_path / "out")
    assert not (tmp_path / "out.download").exists()


def test_a_damaged_archive_is_fetched_again(served, penn_fudan, tmp_path):
    """Penn-Fudan has no published checksum; the one in the archive has to do."""
    archive = bytearray(penn_fudan[1])
    archive[archive.index(b"IDAT") + 20] ^= 1
    with pytest.raises(BotvisionError, match="cannot be unpacked"):
        get(served("penn-fudan", PennFudanPed=bytes(archive)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    get(served("penn-fudan", PennFudanPed=penn_fudan[1]), tmp_path / "out")
    assert (tmp_path / "out").exists()


def test_an_archive_of_something_else(served, tmp_path):
    with pytest.raises(BotvisionError, match="PNGImages: not in the archive"):
        get(served("penn-fudan", PennFudanPed=zipped({"a.txt": b""})), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_broken_download_is_not_taken_for_a_whole_one(served, tmp_path):
    archive = tarred({"imagenette2-320/train/a/1.JPEG": b"1", "imagenette2-320/val/a/2.JPEG": b"2"})
    chosen = served("imagenette", imagenette2_320=archive)
    path = tmp_path / "served" / chosen.files[0].name
    for content in (archive[:-1], archive + b"x", archive[:-1] + b"x"):
        path.write_bytes(content)
        with pytest.raises(BotvisionError, match=r"expected .* bytes of md5"):
            get(chosen, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    path.write_bytes(archive)
    get(chosen, tmp_path / "out")
    assert (tmp_path / "out" / "val" / "a" / "2.JPEG").read_text() == "2"


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9})
    )
    with pytest.raises(BotvisionError, match=r"expected 40\.8 GB .* got 1\.0 GB"):
        get(PUBLIC_SETS["coco"], tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_checksums_can_be_ones(name):
    for remote in PUBLIC_SETS[name].files:
        if remote.checksum:
            algorithm, _, digest = remote.checksum.partition(":")
            assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size


@pytest.fixture
def small_imagenet(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "IMAGENET_CLASSES", 3)
    monkeypatch.setattr(download, "IMAGENET_IMAGES", {"train": 7, "val": 6})
    for split, counts in (("train", (2, 4, 1)), ("val", (2, 2, 2))):
        for name, count in enumerate(counts):
            folder = tmp_path / split / f"n0000000{name}"
            folder.mkdir(parents=True)
            for image in range(count):
                (folder / f"{image}.JPEG").touch()
    return tmp_path


def test_imagenet(small_imagenet):
    assert check_imagenet(small_imagenet) == {"train": 7, "val": 6}


def test_imagenet_with_parts_missing(small_imagenet):
    folder = small_imagenet
    (folder / "val" / "n00000001" / "1.JPEG").rename(folder / "val" / "ILSVRC2012_val_1.JPEG")
    with pytest.raises(BotvisionError) as caught:
        check_imagenet(folder)
    said = "got 3 with 5 (fewest in n00000001) and 1 images beside them"
    assert f"{folder / 'val'}: expected 3 class folders" in str(caught.value)
    assert said in str(caught.value)
    (folder / "train" / "n00000001").rename(folder / "train" / "other")
    with pytest.raises(BotvisionError, match=r"train: expected 3 class folders .* got 2 with 3 "):
        check_imagenet(folder)
    with pytest.raises(BotvisionError, match=r"train: expected 3 class folders .* got 0 with 0 "):
        check_imagenet(folder / "val")
