"""Images with their classes under them, and predicted classes as a file and a sheet."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from botvision.errors import BotvisionError
from botvision.files import quoted, replacing, write_json_lists, write_table
from botvision.images.captions import caption_font, fitted, readable
from botvision.images.draw import LARGEST_CELL, mosaic
from botvision.images.own_files import MADE_BY, OUTPUT_NAME, SHEET_NAME, TABLE_NAME, save_drawn
from botvision.tasks.classification.metrics import BEST_CLASSES
from botvision.tasks.classification.predictor import ClassificationPredictor
from botvision.tasks.predictor import counted

if TYPE_CHECKING:
    import supervision

_ON_THE_SHEET = 25
_LINES = 3  # below an image of the sheet
_BARS_OF = 20  # images in the summary
_BAR_WIDTH = 24  # of a certain class
_SIDE = 192  # smaller images are enlarged to about this
_LINE = 20
BLACK, GREEN, RED = (30, 30, 30), (0, 120, 60), (190, 30, 30)
Line = tuple[str, tuple[int, int, int]]


class ClassificationWriter:
    """Writes classes of images; see ``ResultWriter`` and ``Task.writer``.

    ``predictions.json`` holds ``made_by``, ``classes``, ``images`` (file name and the five most
    probable classes with their probabilities) and ``skipped`` (file name and reason);
    ``predictions.jpg`` shows the first 25 images. ``save`` may name "csv": ``predictions.csv``, a
    row per image.
    """

    def __init__(
        self,
        predictor: ClassificationPredictor,
        output: Path,
        names: Sequence[Path],
        save: Sequence[str] | None = None,
    ) -> None:
        del names
        for each in save or ():
            if each != "csv":
                raise BotvisionError(
                    f"save: expected csv, got {each!r}, which a classifier does not write"
                )
        self._predictor = predictor
        self._output = output
        self._table = output / TABLE_NAME if save else None
        self._first: list[dict[str, Any]] = []
        self._images = 0
        self._counts: Counter[str] = Counter()
        self.files = [output / OUTPUT_NAME, output / SHEET_NAME]
        if self._table is not None:
            self.files.append(self._table)

    def draw(self, name: Path, image: Image.Image, result: "supervision.Classifications") -> None:
        """Write nothing; see ``ResultWriter.draw``."""

    def record(
        self,
        name: Path,
        size: tuple[int, int],  # noqa: ARG002 - of the protocol
        result: "supervision.Classifications",
    ) -> dict[str, Any]:
        """Return an image's file name and most probable classes; see ``ResultWriter.record``."""
        assert result.confidence is not None
        best = zip(result.class_id.tolist(), result.confidence.tolist(), strict=True)
        predicted = [
            {"class": self._predictor.classes[index], "probability": probability}
            for index, probability in [*best][:BEST_CLASSES]
        ]
        return {"file_name": name.as_posix(), "predicted": predicted}

    def finish(
        self,
        records: Callable[[], Iterator[dict[str, Any]]],
        skipped: Sequence[dict[str, Any]],
        read: Callable[[str], Image.Image],
    ) -> None:
        """Write ``predictions.json``, the sheet, and the table if it is asked for."""
        for record in records():
            self._images += 1
            if len(self._first) < _ON_THE_SHEET:
                self._first.append(record)
            for best in record["predicted"][:1]:
                self._counts[best["class"]] += 1
        self._output.mkdir(parents=True, exist_ok=True)
        cells = [self._cell(read(each["file_name"]), each["predicted"]) for each in self._first]
        with replacing(self._output / SHEET_NAME) as temporary:
            save_drawn(mosaic(cells), temporary)
        if self._table is not None:
            rows = (
                [record["file_name"], best["class"], f"{best['probability']:.4f}"]
                for record in records()
                for best in record["predicted"][:1]
            )
            write_table(self._table, ["file_name", "class", "probability"], rows)
        write_json_lists(
            self._output / OUTPUT_NAME,
            {"made_by": MADE_BY, "classes": list(self._predictor.classes)},
            {"images": records(), "skipped": skipped},
        )

    def summary(self) -> list[str]:
        """Return the most probable classes of the first images with bars, and counts of all."""
        shown = self._first[:_BARS_OF]
        width = max(
            (len(each["class"]) for image in shown for each in image["predicted"]), default=0
        )
        lines = []
        for image in shown:
            lines.append(image["file_name"])
            for each in image["predicted"]:
                bar = "█" * max(1, round(_BAR_WIDTH * each["probability"]))
                lines.append(f"  {each['class']:<{width}} {each['probability']:.3f} {bar}")
        if self._images > len(shown):
            lines.append(f"and {self._images - len(shown):,} more")
        if self._counts:
            lines.append(f"{self._images:,} images: {counted(self._counts)}")
        lines.append(f"predictions.json and predictions.jpg are in {quoted(self._output)}")
        return lines

    def _cell(self, image: Image.Image, predicted: list[dict[str, Any]]) -> Image.Image:
        """Draw an image as the classifier sees it, above its most probable classes."""
        lines = [
            (f"{each['probability']:.2f} {each['class']}", BLACK) for each in predicted[:_LINES]
        ]
        given = self._predictor.description.input
        return captioned(
            self._predictor.transform(image),
            lines,
            mean=torch.tensor(given.mean),
            std=torch.tensor(given.std),
        )


def captioned(image: Tensor, lines: Sequence[Line], *, mean: Tensor, std: Tensor) -> Image.Image:
    """Return a normalized image with lines of text under it.

    Args:
        image: float32 [3, H, W].
        lines: Texts and their colors, in any script; cut where they are too long.
        mean: Mean that the image was normalized with, [3].
        std: Standard deviation that it was normalized with, [3].
    """
    shown = (image.cpu().float() * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
    drawn = F.to_pil_image(F.to_dtype(shown, torch.uint8, scale=True))
    drawn.thumbnail((LARGEST_CELL, LARGEST_CELL))
    factor = max(1, round(_SIDE / max(drawn.size)))
    width, height = drawn.width * factor, drawn.height * factor
    sheet = Image.new("RGB", (width, height + _LINE * len(lines)), "white")
    sheet.paste(drawn.resize((width, height), Image.Resampling.NEAREST))
    draw = ImageDraw.Draw(sheet)
    for number, (text, color) in enumerate(lines):
        place = (2, height + number * _LINE + 1)
        line = readable(text)
        font = caption_font(line)
        draw.text(place, fitted(line, font, width - 4), fill=color, font=font)
    return sheet
