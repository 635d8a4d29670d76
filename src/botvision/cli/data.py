"""``botvision data``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer
from rich.console import Console

from botvision.cli.data_check import check
from botvision.cli.display import counting, counting_steps
from botvision.cli.options import Data, Overrides, with_keys
from botvision.errors import BotvisionError, nearest
from botvision.files import quoted

if TYPE_CHECKING:
    from botvision.datasets.formats.convert import ConversionReport

_SHOWN_FAULTS = 100

app = typer.Typer(help="Make, get, check, convert and shard data sets.", no_args_is_help=True)
app.command("check")(check)


@app.command()
def preview(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, or a YAML file.")],
    data: Data,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="Image to write.")] = Path("preview.jpg"),
    count: Annotated[int, typer.Option(min=1, max=16, help="Images.")] = 16,
    epoch: Annotated[int, typer.Option(min=0, help="Epoch that begins with them.")] = 0,
) -> None:
    """Draw what a model will see: images as a recipe augments them, with their targets.

    They are the first ones of the epoch, exactly as the training gets them.

    Example: botvision data preview finetune --data my_set --set data.copy_paste=0.5
    """
    from botvision.recipes.preview import draw_preview
    from botvision.recipes.reading import read_recipe

    chosen = read_recipe(recipe, with_keys(overrides, data__folder=data))
    drawn = draw_preview(chosen, output, count=count, epoch=epoch)
    print(f"{drawn} images of epoch {epoch} are in {quoted(output)}")


@app.command()
def shard(
    folder: Annotated[str, typer.Argument(help="COCO folder or class folders.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    shard_mib: Annotated[
        int, typer.Option(min=1, help="Size after which a shard ends, in MiB.")
    ] = 64,  # object storage is read at full speed, and a training begins soon
) -> None:
    """Write a data set as WebDataset shards, to be trained on from here or from an address.

    Images are copied as they are, beside their labels; nothing in FOLDER
    is changed. Put OUT into object storage or behind a web server, and give
    its address as --data: shards are fetched when they are needed.

    Example: botvision data shard coco coco_shards

    Example: botvision train finetune --data s3://bucket/coco_shards
    """
    from botvision.datasets.coco.sharding import shard_coco
    from botvision.datasets.folders.sharding import shard_classes
    from botvision.datasets.layouts import find_layouts

    found = find_layouts(Path(folder)) if Path(folder).is_dir() else []
    size = shard_mib * 2**20
    with counting_steps(Console()) as progress:
        if found:
            counts = shard_coco(Path(folder), out, shard_size=size, progress=progress)
        else:
            counts = shard_classes(folder, out, shard_size=size, progress=progress)
    for split, (images, shards) in counts.items():
        print(f"{split}: {images:,} images in {shards:,} shards")
    print(f"the shards are in {quoted(out)}")


@app.command()
def handwriting(
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    train: Annotated[int, typer.Option(min=1, help="Training scenes.")] = 2000,
    val: Annotated[int, typer.Option(min=1, help="Validation scenes.")] = 200,
    size: Annotated[int, typer.Option(min=16, max=427, help="Side of a scene in pixels.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
) -> None:
    """Write the embedded data set, real handwriting on real photographs, as a COCO folder.

    Example: botvision data handwriting digits --train 500
    """
    from botvision.datasets.handwriting import write_handwriting

    with counting(Console(), "write scenes") as progress:
        write_handwriting(folder, train=train, val=val, size=size, seed=seed, progress=progress)
    print(f"{train} training and {val} validation scenes are in {quoted(folder)}")


@app.command()
def convert(
    folder: Annotated[Path, typer.Argument(help="COCO, YOLO, Pascal VOC or labelme folder.")],
    out: Annotated[Path, typer.Argument(help="COCO folder to make.")],
    source_format: Annotated[
        str, typer.Option("--format", help="auto, coco, yolo, voc or labelme.")
    ] = "auto",
    val_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction for val where there is no such split.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of their choice.")] = 0,
    link: Annotated[bool, typer.Option(help="Hard links instead of copies of the images.")] = False,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="Leave out and list images that are unreadable or badly labeled."
        ),
    ] = False,
    voc_from: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1,
            help="What Pascal VOC boxes count from; by default told by values.",
        ),
    ] = None,
) -> None:
    """Write a data set of another format or layout as a COCO folder to train on.

    Boxes, polygons and masks stay what they are; nothing in FOLDER is changed.
    All faults of images and labels are listed at once, and nothing is written.

    Example: botvision data convert my_yolo_set my_coco_set --link
    """
    from botvision.datasets.formats.convert import convert as convert_folder
    from botvision.datasets.layouts import Format

    formats = get_args(Format)
    if source_format not in ("auto", *formats):
        raise BotvisionError(
            f"--format: expected auto, {', '.join(formats)}, got {source_format!r}"
            f"{nearest(source_format, formats)}"
        )
    with counting_steps(Console()) as progress:
        report = convert_folder(
            folder,
            out,
            format=None if source_format == "auto" else cast(Format, source_format),
            val_fraction=val_fraction,
            seed=seed,
            link=link,
            skip_bad=skip_bad,
            voc_from=cast("Literal[0, 1] | None", voc_from),
            progress=progress,
        )
    _print_conversion(report)
    print(f"the COCO folder is {quoted(out)}")


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="coco, penn-fudan, cifar10, imagenette or imagenet.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make; of imagenet, to check.")],
) -> None:
    """Download a public data set from its official site, checked and ready to train on.

    After a cut the same command goes on. ImageNet may not be downloaded by
    programs: what to put where is printed, and what is there is counted.

    Example: botvision data get penn-fudan penn-fudan
    """
    from botvision.datasets.download import PUBLIC_SETS, get_public_set

    if name == "imagenet":
        _imagenet(folder)
        return
    if name not in PUBLIC_SETS:
        known = [*PUBLIC_SETS, "imagenet"]
        raise BotvisionError(
            f"data get: expected {', '.join(known)}, got {name!r}{nearest(name, known)}"
        )
    chosen = PUBLIC_SETS[name]
    size = sum(remote.size for remote in chosen.files)
    print(f"{chosen.title}; {size / 1e9:.2f} GB to download")
    for remote in chosen.files:
        if not remote.checksum:
            print(
                f"{remote.name}: no checksum is published: its size and the checksums inside it "
                "are checked"
            )
    with counting_steps(Console()) as progress:
        get_public_set(chosen, folder, progress=progress)
    print(f"the data set is in {quoted(folder)}")


def _imagenet(folder: Path) -> None:
    from botvision.datasets.download import IMAGENET_INSTRUCTIONS, check_imagenet

    if not folder.is_dir():
        print(IMAGENET_INSTRUCTIONS.format(folder=folder))
        return
    with counting(Console(), "count class folders") as progress:
        counts = check_imagenet(folder, progress=progress)
    for split, images in counts.items():
        print(f"{split}: {images:,} images of 1,000 classes, complete")


def _print_conversion(report: "ConversionReport") -> None:
    print(report.layout)
    for note in report.notes:
        print(f"note: {note}")
    for split, images in report.images.items():
        print(f"{split}: {images:,} images, {report.instances[split]:,} instances")
    if report.empty_images:
        print(f"images without an instance: {report.empty_images:,}")
    for name, count in report.per_class.items():
        print(f"class {name}: {count:,} instances")
    for fault in report.faults[:_SHOWN_FAULTS]:
        print(f"left out: {fault}")
    if len(report.faults) > _SHOWN_FAULTS:
        print(f"left out: {len(report.faults) - _SHOWN_FAULTS:,} more faults")
    if report.images_left_out:
        total = report.images_left_out + sum(report.images.values())
        print(f"left out: {report.images_left_out:,} of {total:,} images")
    for reason, count in report.skipped.items():
        print(f"left out: {count:,} of {report.total:,} annotations: {reason}")
    if report.clipped:
        print(f"boxes cut at the image's edge: {report.clipped:,}")
