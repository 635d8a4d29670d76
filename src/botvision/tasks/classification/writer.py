"""Images with their classes under them, and predicted classes as a file and a sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from botvision.files import quoted, replacing, write_json
from botvision.images.captions import caption_font, fitted, readable
from botvision.images.draw import LARGEST_CELL, mosaic
from botvision.images.own_files import MADE_BY, OUTPUT_NAME, SHEET_NAME, save_drawn
from botvision.tasks.classification.metrics import BEST_CLASSES
from botvision.tasks.classification.predictor import ClassificationPredictor

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
    """Writes ``predictions.json`` and a sheet of the first 25 images; see ``ResultWriter``.

    ``predictions.json`` holds ``made_by``, ``classes``, ``images`` (file name and the five most
    probable classes with their probabilities) and ``skipped`` (file name and reason).

    Args:
        predictor: Predictor of the results.
        output: Folder to write to; made at the end.
        names: Ignored; see ``Task.writer``.

    Attributes:
        files: Paths that will be written.
    """

    def __init__(
        self, predictor: ClassificationPredictor, output: Path, names: Sequence[Path]
    ) -> None:
        del names
        self._predictor = predictor
        self._output = output
        self._images: list[dict[str, Any]] = []
        self._cells: list[Image.Image] = []
        self.files = [output / OUTPUT_NAME, output / SHEET_NAME]

    def add(self, name: Path, image: Image.Image, result: "supervision.Classifications") -> None:
        """Keep the result of an image; see ``ResultWriter.add``."""
        assert result.confidence is not None
        best = zip(result.class_id.tolist(), result.confidence.tolist(), strict=True)
        predicted = [
            {"class": self._predictor.classes[index], "probability": probability}
            for index, probability in [*best][:BEST_CLASSES]
        ]
        self._images.append({"file_name": name.as_posix(), "predicted": predicted})
        if len(self._cells) < _ON_THE_SHEET:
            self._cells.append(self._cell(image, predicted))

    def finish(self, skipped: list[dict[str, str]]) -> dict[str, Any]:
        """Write the sheet and ``predictions.json``, and return the content of the latter."""
        content = {
            "made_by": MADE_BY,
            "classes": list(self._predictor.classes),
            "images": self._images,
            "skipped": skipped,
        }
        self._output.mkdir(parents=True, exist_ok=True)
        with replacing(self._output / SHEET_NAME) as temporary:
            save_drawn(mosaic(self._cells), temporary)
        write_json(self._output / OUTPUT_NAME, content)
        return content

    def summary(self) -> list[str]:
        """Return the most probable classes of the first images with bars."""
        width = max(
            (len(each["class"]) for image in self._images for each in image["predicted"]), default=0
        )
        lines = []
        for image in self._images[:_BARS_OF]:
            lines.append(image["file_name"])
            for each in image["predicted"]:
                bar = "█" * max(1, round(_BAR_WIDTH * each["probability"]))
                lines.append(f"  {each['class']:<{width}} {each['probability']:.3f} {bar}")
        if len(self._images) > _BARS_OF:
            lines.append(f"and {len(self._images) - _BARS_OF} more")
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
