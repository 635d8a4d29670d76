"""Handwriting scenes: reproducible, split by sample, and with masks that lie on the ink."""

import sys

import numpy as np
import pytest

from botvision.datasets.handwriting import HandwritingScenes
from botvision.errors import BotvisionError

SPLITS = ["train", "val"]


@pytest.fixture(scope="module")
def scenes():
    return {split: HandwritingScenes(split, size=96, seed=3) for split in SPLITS}


@pytest.fixture
def written(monkeypatch):
    """What every attempt to write a digit was given, and the ink that came of it."""
    attempts = []
    write = HandwritingScenes._write

    def recording(self, digit, rng):
        ink = write(self, digit, rng)
        attempts.append((digit, ink))
        return ink

    monkeypatch.setattr(HandwritingScenes, "_write", recording)
    return attempts


def equal(one, other):
    return (
        np.array_equal(one.image, other.image)
        and one.digits == other.digits
        and np.array_equal(one.masks, other.masks)
    )


def test_a_scene_is_what_it_says(scenes):
    for split in SPLITS:
        for number in range(10):
            scene = scenes[split].scene(number)
            assert scene.image.shape == (96, 96, 3)
            assert scene.image.dtype == np.uint8
            assert scene.masks.shape == (len(scene.digits), 96, 96)
            assert scene.masks.dtype == np.bool_
            assert 1 <= len(scene.digits) <= 7
            assert set(scene.digits) <= set(range(10))


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_depends_on_seed_and_number_alone(scenes, split):
    # Another object, and scenes drawn in another order.
    again = HandwritingScenes(split, size=96, seed=3)
    for number in (7, 0, 3):
        assert equal(again.scene(number), scenes[split].scene(number))


def test_the_global_generator_is_not_touched(scenes):
    before = scenes["train"].scene(0)
    np.random.seed(1)  # noqa: NPY002 - the global state is the point
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert equal(scenes["train"].scene(0), before)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_seeds_numbers_and_splits_give_different_scenes(scenes):
    drawn = [scenes[split].scene(number) for split in SPLITS for number in range(6)]
    drawn += [HandwritingScenes("train", size=96, seed=seed).scene(0) for seed in (0, 4)]
    images = {scene.image.tobytes() for scene in drawn}
    masks = {scene.masks.tobytes() for scene in drawn}
    assert len(images) == len(masks) == len(drawn)


def test_the_seed_chooses_the_backgrounds_as_well():
    one, other = (HandwritingScenes("train", size=96, seed=seed) for seed in (0, 1))
    for number in range(6):
        difference = np.subtract(one.scene(number).image, other.scene(number).image, dtype=float)
        assert np.median(np.abs(difference)) > 4  # noise alone has about 2


@pytest.mark.parametrize("seed", [0, 1])
def test_samples_are_split_between_training_and_validation(seed):
    train, val = (set(HandwritingScenes(s, seed=seed).sample_ids.tolist()) for s in SPLITS)
    assert (len(train), len(val)) == (1500, 297)
    assert train | val == set(range(1797))


def test_the_seed_chooses_the_validation_samples():
    one, other = (set(HandwritingScenes("val", seed=seed).sample_ids) for seed in (0, 1))
    assert len(one & other) < 100  # 49 of 297 are expected by chance


def test_only_samples_of_the_split_are_written(scenes, written):
    from sklearn.datasets import load_digits

    samples = [image.astype(np.float32).tobytes() for image in load_digits().images / 16]
    own = {s: {samples[i] for i in scenes[s].sample_ids} for s in SPLITS}
    assert not own["train"] & own["val"]
    for split in SPLITS:
        written.clear()
        for number in range(30):
            scenes[split].scene(number)
        used = {digit.tobytes() for digit, _ in written}
        assert len(used) > 50
        assert used <= own[split]


def test_digits_are_those_of_the_samples(scenes, written):
    from sklearn.datasets import load_digits

    samples = load_digits()
    value = {
        image.astype(np.float32).tobytes(): int(target)
        for image, target in zip(samples.images / 16, samples.target, strict=True)
    }
    for number in range(10):
        written.clear()
        scene = scenes["train"].scene(number)
        for digit, mask in zip(scene.digits, scene.masks, strict=True):
            # Its sample is the attempt whose ink holds the mask and little else.
            sample, _ = min(
                (each for each in written if not (mask & (each[1] <= 0.5)).any()),
                key=lambda each: (each[1] > 0.5).sum(),
            )
            assert digit == value[sample.tobytes()]


def test_masks_are_disjoint_and_mostly_visible(scenes, written):
    overlaps = 0
    for number in range(60):
        written.clear()
        scene = scenes["train"].scene(number)
        assert scene.masks.sum(0).max() == 1
        for mask in scene.masks:
            full = min((ink > 0.5).sum() for _, ink in written if not (mask & (ink <= 0.5)).any())
            assert mask.sum() >= 0.7 * full
            overlaps += mask.sum() < full
    assert overlaps > 10  # the promise is tested only where digits do overlap


def test_masks_lie_on_the_ink(scenes):
    # Ink has one color, but for noise and a soft edge: moved by three pixels in any direction,
    # the masks hold more of the photograph.
    def spread(scene, masks):
        deviations = []
        for mask in masks:
            pixels = scene.image[mask].astype(float)
            deviations.append(np.abs(pixels - np.median(pixels, axis=0)).mean(1))
        return np.median(np.concatenate(deviations))

    for number in range(20):
        scene = scenes["val"].scene(number)
        moved = [
            spread(scene, np.roll(scene.masks, offset, axis))
            for offset in (-3, 3)
            for axis in (1, 2)
        ]
        assert spread(scene, scene.masks) < min(moved)


def test_digits_are_of_many_sizes(scenes):
    heights = []
    for number in range(60):
        for mask in scenes["train"].scene(number).masks:
            rows = np.flatnonzero(mask.any(axis=1))
            heights.append((rows[-1] - rows[0] + 1) / 96)
    assert min(heights) < 0.25
    assert max(heights) > 0.5


@pytest.mark.parametrize("size", [16, 64, 427])
def test_other_sizes(size):
    scene = HandwritingScenes("train", size=size).scene(0)
    assert scene.image.shape == (size, size, 3)
    assert scene.masks.any(axis=(1, 2)).all()


@pytest.mark.parametrize("size", [-5, 0, 1, 428, 5000])
def test_sizes_that_cannot_be_drawn(size):
    # The smaller side of the photographs is 427 pixels.
    with pytest.raises(ValueError, match=rf"size: expected .* got {size}"):
        HandwritingScenes("train", size=size).scene(0)


def test_an_unknown_split():
    # Not taken for training, whose samples an evaluation must not see.
    with pytest.raises(ValueError, match=r"split: expected .* got 'valid'"):
        HandwritingScenes("valid")


def test_scikit_learn_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(BotvisionError, match=r"scikit-learn.*botvision\[demo\]"):
        HandwritingScenes("train")
