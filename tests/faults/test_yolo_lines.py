"""YOLO label lines with keypoints, confidences and track ids, and outlines that look like them."""

import json

import numpy as np
import pytest
from PIL import Image

from botvision.datasets.formats.convert import convert
from botvision.errors import BotvisionError

SIZE = np.array([200, 100])


@pytest.fixture
def read(tmp_path):
    """A function of lines, one image each, that converts them.

    It returns the report, and box and outline of each line.
    """

    def run(lines, yaml=""):
        folder = tmp_path / "yolo"
        for name in ("images", "labels"):
            (folder / name).mkdir(parents=True)
        (folder / "data.yaml").write_text(f"train: images\nnames: [cat, dog]\n{yaml}")
        for number, line in enumerate(lines):
            Image.new("RGB", tuple(SIZE.tolist())).save(folder / "images" / f"{number:03}.png")
            (folder / "labels" / f"{number:03}.txt").write_text(line)
        report = convert(folder, tmp_path / "out")
        found = {}
        for split in ("train", "val"):
            content = json.loads(
                (tmp_path / "out" / "annotations" / f"instances_{split}.json").read_text()
            )
            names = {each["id"]: each["file_name"].partition("/")[2] for each in content["images"]}
            for each in content["annotations"]:
                found[names[each["image_id"]]] = (each["bbox"], each.get("segmentation"))
        return report, [found[name] for name in sorted(found)]

    return run


def text(category, numbers):
    return " ".join([str(category), *(f"{value:.6f}" for value in numbers)])


def boxes(rng, count):
    """Random boxes x, y, width, height inside the image, as fractions."""
    sides = rng.uniform(0.1, 0.5, (count, 2))
    return np.hstack([rng.uniform(sides / 2, 1 - sides / 2), sides])


def pixels(box):
    x, y, w, h = box
    return [(x - w / 2) * SIZE[0], (y - h / 2) * SIZE[1], w * SIZE[0], h * SIZE[1]]


def check_boxes(found, wanted):
    for (box, outline), expected in zip(found, wanted, strict=True):
        assert outline is None
        np.testing.assert_allclose(box, pixels(expected), atol=1e-3)


def keypoints(rng, box, count, visibility=None):
    points = box[:2] + box[2:] * rng.uniform(-0.5, 0.5, (count, 2))
    if visibility is None:
        return points.ravel()
    seen = np.resize(visibility, count)
    points[seen == 0] = 0
    return np.hstack([points, seen[:, None]]).ravel()


@pytest.mark.parametrize("count", [4, 5, 17])
@pytest.mark.parametrize("visibility", [None, [1], [2, 1], [2, 0, 1]])
@pytest.mark.parametrize("seed", range(3))
def test_poses(read, count, visibility, seed):
    rng = np.random.default_rng(seed)
    wanted = boxes(rng, 8)
    lines = [text(0, [*box, *keypoints(rng, box, count, visibility)]) for box in wanted]
    report, found = read(lines)
    check_boxes(found, wanted)
    assert any("8 lines are a box with keypoints" in note for note in report.notes)


@pytest.mark.parametrize("count", [3, 4, 17])
def test_poses_with_scores(read, count):
    """What a pose estimator writes: x, y and a score from 0 to 1."""
    rng = np.random.default_rng(2)
    wanted = boxes(rng, 8)
    lines = []
    for box in wanted:
        points = keypoints(rng, box, count).reshape(-1, 2)
        lines.append(text(0, [*box, *np.hstack([points, rng.uniform(0, 1, (count, 1))]).ravel()]))
    _, found = read(lines)
    check_boxes(found, wanted)


@pytest.mark.parametrize("visibility", [None, [2]])
def test_poses_beside_boxes(read, visibility):
    rng = np.random.default_rng(0)
    wanted = boxes(rng, 6)
    lines = [text(0, [*box, *keypoints(rng, box, 5, visibility)]) for box in wanted[:4]]
    lines += [text(1, box) for box in wanted[4:]]
    _, found = read(lines)
    check_boxes(found, wanted)


@pytest.mark.parametrize("count", [1, 3])
def test_an_odd_number_of_visible_points(read, count):
    rng = np.random.default_rng(1)
    wanted = boxes(rng, 5)
    _, found = read([text(0, [*box, *keypoints(rng, box, count, [2, 1])]) for box in wanted])
    check_boxes(found, wanted)


def test_what_may_be_either_is_refused(read):
    """A single line proves nothing."""
    with pytest.raises(BotvisionError) as caught:
        read(["0 0.5 0.5 0.4 0.4 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6", "1 0.5 0.5 0.1 0.1"])
    for word in ("000.txt: line 1: 13 fields", "kpt_shape: [4, 2]", "kpt_shape: [0, 2]"):
        assert word in str(caught.value)


LINE = "0 0.5 0.5 0.4 0.4 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6"


@pytest.mark.parametrize(("shape", "pose"), [("[4, 2]", True), ("[0, 2]", False)])
def test_what_the_folder_says(read, shape, pose):
    _, found = read([LINE, LINE], yaml=f"kpt_shape: {shape}")
    assert [outline is None for _, outline in found] == [pose, pose]


def test_lines_that_are_not_as_the_folder_says(read):
    with pytest.raises(BotvisionError, match="12 numbers of keypoints as kpt_shape says, got 13"):
        read([LINE, LINE], yaml="kpt_shape: [6, 2]")


def contour(rng, points, start):
    """A polygon around a random place, from its given angle on."""
    center = rng.uniform(0.2, 0.8, 2)
    radius = rng.uniform(0.02, 0.19)
    angles = start + np.linspace(0, 2 * np.pi, points, endpoint=False)
    spread = rng.uniform(0.6, 1, (points, 1))
    return (center + radius * spread * np.stack([np.cos(angles), np.sin(angles)], 1)).ravel()


@pytest.mark.parametrize("points", [3, 4, 5, 6, 8, 13])
@pytest.mark.parametrize("start", [0, -2.3, 1.6])
@pytest.mark.parametrize("seed", range(3))
def test_outlines_stay_outlines(read, points, start, seed):
    """All of one number of points, as a pose has; of 4 points, as oriented boxes."""
    rng = np.random.default_rng(seed)
    wanted = [contour(rng, points, start) for _ in range(8)]
    report, found = read([text(1, each) for each in wanted])
    for (_, outline), expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(outline[0], (expected.reshape(-1, 2) * SIZE).ravel(), atol=1e-3)
    assert not any("keypoints" in note or "confidence" in note for note in report.notes)


def test_rectangles_as_outlines(read):
    corners = [(0.1, 0.1, 0.4, 0.5), (0.0, 0.0, 1.0, 1.0), (0.3, 0.2, 0.9, 0.6), (0.5, 0, 1, 0.5)]
    lines = [text(0, [x1, y1, x2, y1, x2, y2, x1, y2]) for x1, y1, x2, y2 in corners]
    lines[1] = "0 0 0 1 0 1 1 0 1"
    _, found = read(lines)
    for (box, outline), (x1, y1, x2, y2) in zip(found, corners, strict=True):
        np.testing.assert_allclose(box, [200 * x1, 100 * y1, 200 * (x2 - x1), 100 * (y2 - y1)])
        assert len(outline[0]) == 8


@pytest.mark.parametrize("turn", [0, 0.7])
def test_oriented_boxes_around_the_center(read, turn):
    """Read as boxes with two keypoints, each would hold its points."""
    angles = turn + np.arctan2([-1, -1, 1, 1], [-1, 1, 1, -1])
    corners = 0.1 * np.stack([np.cos(angles), np.sin(angles)], 1)
    wanted = [(corners + center).ravel() for center in (0.45, 0.5, 0.55)]
    _, found = read([text(1, each) for each in wanted])
    for (_, outline), expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(outline[0], (expected.reshape(-1, 2) * SIZE).ravel(), atol=1e-3)


def test_outlines_that_end_at_an_edge(read):
    """A road's outline may end in a whole 1, as a line with a track id of 1 does."""
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(5):
        x = rng.uniform(0, 0.5)
        lines.append(f"0 {x:.4f} 1 {x + 0.1:.4f} 0.5 {x + 0.3:.4f} 0.5 {x + 0.45:.4f} 1")
    _, found = read(lines)
    assert all(outline and len(outline[0]) == 8 for _, outline in found)


@pytest.mark.parametrize("ids", [[1] * 6, [1, 2, 3, 4, 5, 6], [7, 7, 7, 7, 7, 12], [0] * 6])
@pytest.mark.parametrize("without", [0, 2])
def test_tracks(read, ids, without):
    """Box, confidence and track id; objects that are not tracked yet have no id."""
    rng = np.random.default_rng(3)
    wanted = boxes(rng, 6)
    lines = [
        f"{text(0, box)} {confidence:.4g}" + ("" if number < without else f" {track}")
        for number, (box, confidence, track) in enumerate(
            zip(wanted, rng.uniform(0.3, 1, 6), ids, strict=True)
        )
    ]
    report, found = read(lines)
    check_boxes(found, wanted)
    assert any("6 lines are a box with a confidence or track id" in n for n in report.notes)


@pytest.mark.parametrize("plain", [0, 3])
def test_confidences(read, plain):
    rng = np.random.default_rng(4)
    wanted = boxes(rng, 8)
    lines = [text(0, box) + ("" if n < plain else " 0.87") for n, box in enumerate(wanted)]
    report, found = read(lines)
    check_boxes(found, wanted)
    assert any(f"{8 - plain} lines are a box with a confidence" in note for note in report.notes)


def test_angles_are_no_track_ids(read):
    """Two boxes of an image may have one angle, but not one track id."""
    line = "0 0.5 0.5 0.1 0.1 90\n1 0.2 0.2 0.1 0.1 90"
    with pytest.raises(BotvisionError, match="6 fields"):
        read([line] * 4)


def test_one_line_of_six_fields_is_a_fault(read):
    with pytest.raises(BotvisionError, match=r"002\.txt: line 1: .*got 6 fields"):
        read(["0 0.5 0.5 0.1 0.1"] * 2 + ["0 0.5 0.5 0.1 0.1 0.9"])


@pytest.mark.parametrize("track", [True, False])
def test_outlines_of_a_tracker(read, track):
    rng = np.random.default_rng(5)
    wanted = [contour(rng, points, 0) for points in (5, 6, 9)]
    ends = [f" {n + 1}" if track else "" for n in range(3)]
    report, found = read(
        [f"{text(0, each)} 0.9{end}" for each, end in zip(wanted, ends, strict=True)]
    )
    assert any("3 lines are an outline with a confidence" in note for note in report.notes)
    for (_, outline), expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(outline[0], (expected.reshape(-1, 2) * SIZE).ravel(), atol=1e-3)


def test_a_hair_outside_is_cut_and_counted(read):
    lines = [
        "1 0.5 0.2 1.0004 0.5 0.5 0.7 0.4 0.4",
        "0 -0.0003 0.2 0.3 0.5 0.1 1.0099",
        "1 0.5 0.2 1.000001 0.5 0.5 0.7",  # a writer's rounding
    ]
    report, found = read(lines)
    assert found[0][1] == [pytest.approx([100, 20, 200, 50, 100, 70, 80, 40])]
    assert found[1][1] == [pytest.approx([0, 20, 60, 50, 20, 100])]
    assert report.clipped == 2


@pytest.mark.parametrize("line", ["0 0.1 0.1 1.02 0.2 0.3 0.9", "0 0.5 0.5 0.1 -0.02"])
def test_what_is_farther_outside_is_refused(read, line):
    with pytest.raises(BotvisionError, match="expected fractions"):
        read([line, "0 0.5 0.5 0.1 0.1"])
