"""The embedded data set: real handwriting on real photographs, as a COCO folder.

scikit-learn's 1,797 handwritten digits (8x8 gray, the UCI optical recognition set) are written
on crops of its two photographs, in any color that can be read there, overlapping and of many
sizes. The masks are the ink that stays visible, exact to the pixel. Digits of the validation
scenes are never used in training scenes. Nothing is downloaded: both ship with scikit-learn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from botvision.datasets.coco.writing import mask_annotation, write_instances
from botvision.errors import BotvisionError
from botvision.files import new_folder

_VALIDATION_DIGITS = 297  # of 1,797, chosen at random with the seed
_LEAST_SIZE, _MOST_SIZE = 16, 427  # pixels; the photographs are 640 x 427
_SMALLEST, _LARGEST = 0.22, 0.6  # height of a digit as a fraction of the scene
_MOST_DIGITS = 6
_INK = 0.45  # ink at which a pixel belongs to the digit
_LEAST_VISIBLE = 0.75  # fraction of a digit that later ones must leave visible
_CATEGORIES = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
_INFO = {"description": "Handwritten digits on photographs, from scikit-learn"}


@dataclass(frozen=True)
class Scene:
    """Image and its instances.

    Attributes:
        image: RGB image, uint8 [S, S, 3].
        digits: Digit of each instance, 0 to 9.
        masks: Visible ink of each instance, bool [n, S, S].
    """

    image: NDArray[np.uint8]
    digits: list[int]
    masks: NDArray[np.bool_]


class HandwritingScenes:
    """Scenes by number: the same seed and number always give the same scene.

    Args:
        split: "train" or "val".
        size: Side of a scene in pixels, 16 to 427 (the photographs' smaller side).
        seed: Random seed of the digits' split and of everything in the scenes.

    Raises:
        BotvisionError: If scikit-learn is missing.
        ValueError: If the split or the size is not one of these.
    """

    def __init__(self, split: str, *, size: int = 128, seed: int = 0) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"split: expected 'train' or 'val', got {split!r}")
        if not _LEAST_SIZE <= size <= _MOST_SIZE:
            raise ValueError(f"size: expected {_LEAST_SIZE} to {_MOST_SIZE} pixels, got {size}")
        try:
            from sklearn.datasets import load_digits, load_sample_images
        except ImportError as error:
            raise BotvisionError(
                "handwriting scenes: scikit-learn is missing; pip install 'botvision[demo]'"
            ) from error
        samples = load_digits()
        order = np.random.default_rng(seed).permutation(len(samples.target))
        chosen = order[:_VALIDATION_DIGITS] if split == "val" else order[_VALIDATION_DIGITS:]
        self._images = samples.images[chosen].astype(np.float32) / 16
        self._digits = samples.target[chosen]
        self._photographs = [Image.fromarray(photo) for photo in load_sample_images().images]
        self._key = (seed, 1 if split == "val" else 0)
        self.sample_ids = chosen
        self.size = size

    def scene(self, number: int) -> Scene:
        """Draw the scene of this number."""
        rng = np.random.default_rng((*self._key, number))
        canvas = self._background(rng)
        wanted = int(rng.integers(2, _MOST_DIGITS + 1))
        digits: list[int] = []
        areas: list[int] = []
        masks: list[NDArray[np.bool_]] = []
        for _ in range(4 * wanted):  # a digit without room is drawn again, a few times
            if len(digits) == wanted:
                break
            sample = int(rng.integers(len(self._digits)))
            ink = self._write(self._images[sample], rng)
            mask = ink > 0.5
            area = int(mask.sum())
            left = [earlier & ~mask for earlier in masks]
            if area == 0 or any(
                rest.sum() < _LEAST_VISIBLE * full for rest, full in zip(left, areas, strict=True)
            ):
                continue
            canvas += ink[..., None] * (_ink_color(canvas, mask, rng) - canvas)
            digits.append(int(self._digits[sample]))
            areas.append(area)
            masks = [*left, mask]
        image = np.clip(canvas + rng.normal(0, 2, canvas.shape), 0, 255).astype(np.uint8)
        return Scene(image, digits, np.stack(masks))

    def _background(self, rng: np.random.Generator) -> NDArray[np.float32]:
        photo = self._photographs[int(rng.integers(len(self._photographs)))]
        side = int(rng.integers(self.size, min(photo.size) + 1))
        x = int(rng.integers(photo.width - side + 1))
        y = int(rng.integers(photo.height - side + 1))
        crop = photo.resize(
            (self.size, self.size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side)
        )
        return np.asarray(crop, dtype=np.float32) * float(rng.uniform(0.6, 1.1))

    def _write(self, digit: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw a digit and return the opacity of its ink, [S, S] in 0..1."""
        height = self.size * _SMALLEST * (_LARGEST / _SMALLEST) ** rng.uniform()
        pixels = height / 8  # scene pixels per pixel of the sample
        angle, shear = rng.uniform(-0.25, 0.25), rng.uniform(-0.2, 0.2)
        stretch = rng.uniform(0.85, 1.15)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        forward = turn @ np.array([[stretch, shear], [0, 1]]) * pixels
        margin = height / 2
        center = rng.uniform(margin, self.size - margin, size=2)
        inverse = np.linalg.inv(forward)
        padded = np.pad(digit, 3)
        # Only the square that the digit can reach is drawn; a diagonal and the shear fit in it.
        first = np.maximum(center - height, 0).astype(int)
        last = np.minimum(center + height, self.size).astype(int)
        origin = np.full(2, padded.shape[0] / 2) + inverse @ (first - center)
        patch = Image.fromarray(padded).transform(
            (int(last[0] - first[0]), int(last[1] - first[1])),
            Image.Transform.AFFINE,
            [*inverse[0], origin[0], *inverse[1], origin[1]],
            Image.Resampling.BICUBIC,
        )
        # A steep ramp around the threshold: a sharp edge, and a clear end of the mask.
        ramp = (np.asarray(patch, dtype=np.float32) - _INK) * pixels / 3 + 0.5
        ink = np.zeros((self.size, self.size), np.float32)
        ink[first[1] : last[1], first[0] : last[0]] = np.clip(ramp, 0, 1)
        return ink


def _ink_color(
    canvas: NDArray[np.float32], mask: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw a color that stands out from the background of the digit."""
    under = float(canvas[mask].mean())
    color = rng.uniform(0, 70, size=3) if under > 110 else rng.uniform(180, 255, size=3)
    return color.astype(np.float32)


def write_handwriting(
    folder: Path,
    *,
    train: int = 2000,
    val: int = 200,
    size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write handwriting scenes as ``images/`` and ``annotations/instances_{train,val}.json``.

    The folder appears only when it is complete.

    Args:
        folder: Folder to write; must not exist.
        train: Number of training scenes.
        val: Number of validation scenes.
        size: Side of a scene in pixels.
        seed: Random seed.
        progress: Called with the number of scenes done and the total.

    Raises:
        BotvisionError: If the folder exists or scikit-learn is missing.
    """
    done = 0
    with new_folder(folder) as written:
        (written / "images").mkdir()
        for split, count in (("train", train), ("val", val)):
            scenes = HandwritingScenes(split, size=size, seed=seed)
            records = []
            for number in range(count):
                scene = scenes.scene(number)
                name = f"{split}_{number:06d}.jpg"
                Image.fromarray(scene.image).save(
                    written / "images" / name, quality=95, subsampling=0
                )
                record = {"id": number + 1, "file_name": name, "width": size, "height": size}
                drawn = zip(scene.masks, scene.digits, strict=True)
                own = [mask_annotation(mask, digit + 1) for mask, digit in drawn]
                records.append((record, own))
                done += 1
                if progress:
                    progress(done, train + val)
            write_instances(written, split, records, _CATEGORIES, info=_INFO)
