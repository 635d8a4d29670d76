"""From images to what a classifier sees, through timm."""

from typing import Any

from timm.data import create_transform
from timm.data.transforms_factory import transforms_imagenet_train
from torchvision import transforms

from botvision.datasets.folders.dataset import Transform
from botvision.errors import BotvisionError
from botvision.tasks.classification.settings import ClassImageSettings

Channels = tuple[float, ...]
_MOST_RESIZED = 100_000_000  # pixels, as of an image that is read
INTERPOLATION = "bicubic"
"""Filter that images are resized with in training and evaluation."""


def training_transform(
    settings: ClassImageSettings, image_size: int, *, mean: Channels, std: Channels
) -> Transform:
    """Return random crops, flips and colors, normalized: float32 [3, image_size, image_size].

    Draws from Python's, numpy's and torch's generators.

    Raises:
        BotvisionError: If the settings contradict each other or timm does not know the automatic
            augmentation.
    """
    low, high = settings.crop_scale
    if low > high:
        raise BotvisionError(
            f"data.crop_scale: expected the smaller fraction first, got [{low}, {high}]"
        )
    arguments: dict[str, Any] = {
        "scale": settings.crop_scale,
        "hflip": settings.flip,
        "color_jitter": settings.color_jitter or None,
        "force_color_jitter": True,  # else timm leaves it out where there is an augmentation
        "auto_augment": settings.augmentation,
        "interpolation": INTERPOLATION,
        "mean": mean,
        "std": std,
        "re_prob": settings.erasing,
        "re_mode": "pixel",
        "separate": True,
    }
    try:
        geometry, colors, normalization = transforms_imagenet_train(image_size, **arguments)
    except (AssertionError, KeyError, ValueError, TypeError) as error:
        raise BotvisionError(
            "data.augmentation: expected a configuration that timm knows, such as 'rand-m10-n2', "
            f"'augmix-m5-w4-d2' or 'original', got {settings.augmentation!r}"
        ) from error
    if settings.crop_padding:
        geometry = transforms.Compose(
            [
                transforms.Resize(image_size, transforms.InterpolationMode.BICUBIC),
                transforms.RandomCrop(image_size, padding=settings.crop_padding),
                transforms.RandomHorizontalFlip(settings.flip),
            ]
        )
    transform: Transform = transforms.Compose([geometry, colors, normalization])
    return transform


def strip_fault(size: tuple[int, int], shorter_side: int) -> str:
    """Return why an image is too long for a classifier, as its whole is resized first; or "".

    Args:
        size: Width and height of the image in pixels.
        shorter_side: What the shorter side is resized to.
    """
    width, height = size
    most = max(1, _MOST_RESIZED // shorter_side**2)
    if max(size) <= most * min(size):
        return ""
    return (
        f"image of {width} x {height}: expected a longer side of at most {most:,} times the "
        f"shorter one, which is resized to {shorter_side}; crop the image"
    )


def evaluation_transform(
    image_size: int,
    crop_pct: float,
    *,
    mean: Channels,
    std: Channels,
    interpolation: str = INTERPOLATION,
) -> Transform:
    """Return the middle of the image, normalized: float32 [3, image_size, image_size].

    Args:
        image_size: Side in pixels.
        crop_pct: Fraction of the shorter side that is looked at.
        mean: Mean of each channel, for images in 0..1.
        std: Standard deviation of each channel.
        interpolation: Filter that the image is resized with.
    """
    transform: Transform = create_transform(
        image_size, crop_pct=crop_pct, interpolation=interpolation, mean=mean, std=std
    )
    return transform
