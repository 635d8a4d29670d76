"""Mixup and CutMix through timm, reproducible."""

from timm.data import Mixup
from torch import Tensor

from botvision.datasets.folders.dataset import Key
from botvision.errors import BotvisionError
from botvision.seeds import all_seeded, derived_seed

_MIXING = 1  # tells its seeds from those of other draws for the same image


class Mixing:
    """Mixes each image of a batch with another, and their labels in the same proportion.

    Args:
        num_classes: Number of classes.
        mixup: Alpha of mixup (Zhang et al. 2018); 0 is none.
        cutmix: Alpha of CutMix (Yun et al. 2019); 0 is none. With both, each batch gets either.
        seed: Of the draws.
    """

    def __init__(self, num_classes: int, *, mixup: float, cutmix: float, seed: int) -> None:
        self._mix = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=num_classes)
        self._seed = seed

    def __call__(self, images: Tensor, labels: Tensor, first: Key) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: [B, 3, H, W]; changed in place.
            labels: int64 [B].
            first: What the first image was asked for by, from which the draws follow.

        Returns:
            The images, and the share of each class in each: float32 [B, num_classes].

        Raises:
            BotvisionError: If the batch is odd, as images are mixed in pairs.
        """
        if len(images) % 2:
            raise BotvisionError(
                "data.mixup, data.cutmix: expected an even number of images at once, got "
                f"{len(images)}; change training.batch_size or training.micro_batch_size"
            )
        with all_seeded(derived_seed(self._seed, *first, _MIXING)):
            mixed: tuple[Tensor, Tensor] = self._mix(images, labels)
        return mixed
