"""A split of class folders or of an archive as a torch data set."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from botvision.classification.generators import all_seeded
from botvision.classification.picture_list import PictureList
from botvision.classification.splits import class_names, find_pictures, find_split, readable
from botvision.classification.transforms import Transform
from botvision.data.seeds import derived_seed
from botvision.errors import BotvisionError

Key = tuple[int, int]
Item = tuple[Tensor, int, Key]


class ClassImages(Dataset[Item]):
    """Images with labels, augmented reproducibly.

    An item is asked for by ``(epoch, index)``; the random numbers of its augmentation depend on
    the seed, the epoch and the index alone, whatever worker or process reads it.

    Items are (image, label, key): what the transform makes of the image, the place of its class in
    ``classes``, and what it was asked for by.

    Args:
        folder: See ``find_split``.
        split: "train" or "val", or another name.
        classes: Of the training data, if this is another split; None: those of this split.
        origin: What the classes are those of, for the error.
        seed: Of the augmentation.
        skip_bad: Read all pictures first and leave out those that cannot be read.

    Attributes:
        path: Where the split is.
        skipped: What was wrong with each picture that was left out.
        classes: Names of the classes, in the order of the labels.
        labels: int64 [n].
        transform: Applied to each picture; to be set before the first item is asked for.

    Raises:
        BotvisionError: If the data is missing or not as it should be.
    """

    transform: Transform

    def __init__(
        self,
        folder: str,
        split: str,
        *,
        classes: Sequence[str] | None = None,
        origin: str = "the training data",
        seed: int = 0,
        skip_bad: bool = False,
    ) -> None:
        self.path = find_split(folder, split)
        pictures = find_pictures(self.path)
        own = class_names(pictures)
        self.skipped: tuple[str, ...] = ()
        if skip_bad:
            pictures, self.skipped = readable(pictures)
            if not pictures:
                raise BotvisionError(f"{self.path}: none of the pictures can be read")
            lost = set(own) - set(class_names(pictures))
            if lost and classes is None:
                raise BotvisionError(
                    f"{self.path}: class {min(lost)!r}: none of its pictures can be read; replace "
                    "them, or remove the class"
                )
        self.classes = own if classes is None else tuple(classes)
        self._seed = seed
        places = {name: place for place, name in enumerate(self.classes)}
        unknown = [name for name in own if name not in places]
        if unknown:
            raise BotvisionError(
                f"{self.path}: class {unknown[0]!r}: expected the {len(places)} classes of "
                f"{origin}, got {len(own)} with {len(unknown)} others; remove them, or train with "
                "them"
            )
        self.labels = torch.tensor([places[picture.class_name] for picture in pictures])
        self._pictures = PictureList(pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        picture = self._pictures[index].read()
        with all_seeded(derived_seed(self._seed, epoch, index)):
            return self.transform(picture), int(self.labels[index]), key

    def name(self, index: int) -> str:
        """Path of a picture inside the split."""
        return self._pictures[index].name

    def summary(self) -> str:
        """The split in a line."""
        text = f"{self.path}: {len(self)} pictures of {len(self.labels.unique())} classes"
        if self.skipped:
            text += f"; {len(self.skipped)} skipped, the first: {self.skipped[0]}"
        return text
