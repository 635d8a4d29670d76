"""Annotation formats that are not read: what they are, and which export to choose instead."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from botvision.datasets.annotation_files import missing_lists, read_head
from botvision.images.find import is_image_name, walk_files

_PROBED_FILES = 20  # of each suffix; the files of a data set are of one kind
_SEEN_FILES = 10_000  # of a million images, the first ones tell as much


@dataclass(frozen=True)
class _Kind:
    """Format, told by the end of a file's path and by words at its beginning.

    Attributes:
        title: Name of the format.
        way_out: What to do instead.
        path: Regular expression of the path's end, without regard to case.
        words: Regular expressions that all occur in the first bytes of the file.
    """

    title: str
    way_out: str
    path: str
    words: tuple[bytes, ...] = ()


_EXPORT = "export as COCO"
_REWRITE = "write it as COCO, YOLO or Pascal VOC"
_JSON = r"\.(nd)?jsonl?$"

# Of two that match, the first one counts.
_KINDS = (
    _Kind(
        "CVAT for images XML",
        "export as COCO 1.0",
        r"\.xml$",
        (rb"<annotations[\s>]", rb"<(meta|version|image|track)\b"),
    ),
    _Kind("dlib XML", _REWRITE, r"\.xml$", (rb"<dataset[\s>]", rb"<images[\s>]")),
    _Kind("LabelMe XML", _REWRITE, r"\.xml$", (rb"<annotation[\s>]", rb"<(imagesize|pt)\b")),
    _Kind("a CVAT backup", "export as COCO 1.0", _JSON, (rb'"shapes"', rb'"tracks"')),
    _Kind(
        "VIA JSON",
        "export as COCO in VIA",
        _JSON,
        (rb'"(_via_settings|shape_attributes|region_attributes|via_version)"|"vid_list"',),
    ),
    _Kind("VIA CSV", "export as COCO in VIA", r"\.csv$", (rb"region_shape_attributes",)),
    _Kind(
        "Datumaro JSON", "export as COCO", _JSON, (rb'"items"', rb'"(dm_format_version|infos?)"')
    ),
    _Kind(
        "a panoptic COCO file", "use its instances_*.json instead", _JSON, (rb'"segments_info"',)
    ),
    _Kind("VoTT JSON", "export as Pascal VOC", _JSON, (rb'"asset"', rb'"regions"')),
    _Kind("Supervisely JSON", _EXPORT, _JSON, (rb'"(classTitle|classId)"',)),
    _Kind("Labelbox JSON", _EXPORT, _JSON, (rb'"(data_row|Labeled Data|External ID)"',)),
    _Kind("Darwin JSON of V7", _EXPORT, _JSON, (rb'"annotations"', rb'"(slots|bounding_box)"')),
    _Kind("CreateML JSON", _EXPORT, _JSON, (rb'"annotations?"', rb'"coordinates"')),
    _Kind("BDD100K JSON", _REWRITE, _JSON, (rb'"labels"', rb'"(box2d|poly2d)"')),
    _Kind("Cityscapes JSON", _REWRITE, _JSON, (rb'"imgHeight"', rb'"objects"')),
    _Kind(
        "Label Studio's own JSON",
        "export as COCO",
        _JSON,
        (
            rb"^(\xef\xbb\xbf)?\s*[\[{]",
            rb'"(rectanglelabels|polygonlabels|brushlabels|completed_by)"',
        ),
    ),
    _Kind(
        "COCO results",
        "those are predictions; use the annotation file",
        _JSON,
        (rb"^(\xef\xbb\xbf)?\s*\[", rb'"image_id"', rb'"score"'),
    ),
    _Kind(
        "COCO captions", "use instances_*.json instead", _JSON, (rb'"annotations"', rb'"caption"')
    ),
    _Kind("SuperAnnotate JSON", _EXPORT, _JSON, (rb'"instances"', rb'"className"')),
    _Kind("Hugging Face metadata", _REWRITE, _JSON, (rb'"file_name"', rb'"objects"')),
    _Kind("a SageMaker manifest", _REWRITE, r"(\.manifest|\.jsonl?)$", (rb'"source-ref"',)),
    _Kind("Ultralytics NDJSON", "export as YOLO", r"\.ndjson$"),
    _Kind("a VoTT project", "export as Pascal VOC", r"\.vott$"),
    _Kind("Open Images CSV", _REWRITE, r"\.csv$", (rb"^\W*ImageID,.*LabelName",)),
    _Kind("a CSV of run lengths", _REWRITE, r"\.csv$", (rb"EncodedPixels",)),
    _Kind(
        "a list of Oxford-IIIT Pet",
        "sort its images into a folder for each breed, to train a classifier; for boxes of heads, "
        "add annotations/xmls, which is converted as Pascal VOC",
        r"(^|/)(list|trainval|test)\.txt$",
        (rb"(^|\n)[A-Za-z_]+_\d+ \d+ [12] \d+\s*(\n|$)",),
    ),
    _Kind("DOTA text", _REWRITE, r"\.txt$", (rb"(^|\n)(-?[\d.]+ ){8}[A-Za-z]",)),
    _Kind("KITTI text", _REWRITE, r"\.txt$", (rb"^[A-Za-z_]\w*( -?[\d.]+){14}",)),
    _Kind("a CSV table", _REWRITE, r"\.(csv|tsv)$"),
    _Kind("TFRecord", _EXPORT, r"\.(tf)?records?([-.][^/]*)?$"),
    _Kind("LMDB", _EXPORT, r"(\.mdb|\.lmdb)$"),
    _Kind("Parquet or Arrow", _EXPORT, r"\.(parquet|arrow|feather)$"),
    _Kind("an archive", "unpack it", r"\.(zip|tar|tgz|tar\.\w+|7z|rar|gz)$"),
    _Kind("an array file", _REWRITE, r"\.(mat|npy|npz|pkl|pickle|h5|hdf5)$"),
    _Kind(
        "a mask of classes",
        "objects have to be told apart; write them as COCO, or as Pascal VOC with Annotations/",
        r"(^|/)(SegmentationClass|SegmentationObject|masks?|annotations?|labels?)(/[^/]+)?/[^/]+\.png$",
    ),
)


def describe_unsupported(folder: Path) -> str:
    """Return one line on the annotations of a folder that are in no known form.

    Args:
        folder: Data folder.

    Returns:
        A file, its format and the way out; empty if none is recognized.
    """
    probed = list(_probed(folder))
    for kind in _KINDS:
        for path, head in probed:
            name = path.relative_to(folder).as_posix()
            if re.search(kind.path, name, re.IGNORECASE) and all(
                re.search(word, head) for word in kind.words
            ):
                return f"{name} is {kind.title}: {kind.way_out}"
    for path, _ in probed:
        if path.suffix.lower() == ".json" and 0 < len(lacking := missing_lists(path)) < 3:
            return (
                f"{path.relative_to(folder).as_posix()} has no {' and no '.join(lacking)} of COCO"
            )
    if probed and all(is_image_name(path) for path, _ in probed):
        return (
            "there are images but no annotations; class folders are trained on as they are, by "
            "recipes of classifiers"
        )
    return ""


def _probed(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield some files of each suffix with their first bytes; of images, none."""
    counts: Counter[tuple[Path, str]] = Counter()
    for path in islice(walk_files(folder), _SEEN_FILES):
        kind = path.parent, path.suffix.lower()
        counts[kind] += 1
        if counts[kind] <= _PROBED_FILES:
            yield path, b"" if is_image_name(path) else read_head(path)
