"""``botvision data convert`` and ``get``: what they print, and their errors in one line."""

import json

import pytest
from PIL import Image

from botvision.datasets import download
from botvision.datasets.download import PUBLIC_SETS
from botvision.shards import fetch as fetching


@pytest.fixture
def yolo(tmp_path):
    folder = tmp_path / "yolo"
    for split in ("train", "valid"):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (40, 30)).save(folder / split / "images" / f"{name}.png")
        lines = "1 0.5 0.5 0.5 0.5\n0 0.9 0.5 0.4 0.5\n0 0.5 0.5 0 0.5\n"
        (folder / split / "labels" / "a.txt").write_text(lines)
    (folder / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\n"
    )
    return folder


def test_convert(cli, yolo, tmp_path):
    status, out, error = cli("data", "convert", yolo, tmp_path / "out", "--link")
    assert (status, error) == (0, "")
    for line in (
        "YOLO layout (data.yaml)",
        "train: 2 images, 2 instances",
        "val: 2 images, 2 instances",
        "images without an instance: 2",
        "class cat: 2 instances",
        "class dog: 2 instances",
        "left out: 2 of 6 annotations: box without area",
        "boxes cut at the image's edge: 2",
        f"the COCO folder is {tmp_path / 'out'}",
    ):
        assert line in out.splitlines(), out
    content = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())
    assert [each["bbox"] for each in content["annotations"]] == [
        pytest.approx([10, 7.5, 20, 15]),
        pytest.approx([28, 7.5, 12, 15]),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("convert", "none", "out"), "none: no such data folder"),
        (("convert", "yolo", "out", "--format", "voc"), "expected a Pascal VOC layout"),
        (("convert", "yolo", "out", "--format", "yoloo"), "did you mean yolo?"),
        (("convert", "yolo", "yolo/out"), "outside yolo"),
        (("get", "penn-fudna", "out"), "did you mean penn-fudan?"),
        (("get", "coco", "yolo"), "yolo: already exists"),
        (("get", "imagenet", "yolo"), "train: expected 1000 class folders"),
    ],
)
def test_mistakes(cli, yolo, tmp_path, tree, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    status, _, error = cli("data", *arguments)
    assert status == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error
    assert tree(tmp_path) == before


def test_get_without_network(cli, tmp_path, monkeypatch):
    import socket

    def fail(*arguments, **keywords):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(fetching, "_WAIT", 0.0)
    status, out, error = cli("data", "get", "penn-fudan", tmp_path / "out")
    assert status == 2
    assert "no checksum is published" in out
    assert error.startswith(f"error: {PUBLIC_SETS['penn-fudan'].files[0].url}: ")
    assert "Temporary failure in name resolution" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_imagenet(cli, tmp_path, monkeypatch):
    status, out, _ = cli("data", "get", "imagenet", tmp_path / "imagenet")
    assert status == 0
    assert f"{tmp_path / 'imagenet'}/train/n01440764/" in out
    monkeypatch.setattr(download, "IMAGENET_CLASSES", 1)
    monkeypatch.setattr(download, "IMAGENET_IMAGES", {"train": 1, "val": 1})
    for split in ("train", "val"):
        (tmp_path / "imagenet" / split / "n01440764").mkdir(parents=True)
        (tmp_path / "imagenet" / split / "n01440764" / "a.JPEG").touch()
    status, out, _ = cli("data", "get", "imagenet", tmp_path / "imagenet")
    assert status == 0
    assert "val: 1 images of 1,000 classes, complete" in out
