"""``botvision data shard``."""

from pathlib import Path
from typing import Annotated

import typer

_SHARD_MIB = 64  # object storage is read at full speed, and a training begins soon


def shard(
    folder: Annotated[str, typer.Argument(help="COCO folder or class folders.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    shard_mib: Annotated[
        int, typer.Option(min=1, help="Size after which a shard ends, in MiB.")
    ] = _SHARD_MIB,
) -> None:
    """Write a data set as WebDataset shards, to be trained on from here or from an address.

    Images are copied as they are, beside their labels; nothing in FOLDER
    is changed. Put OUT into object storage or behind a web server, and give
    its address as --data: shards are fetched when they are needed.

    Example: botvision data shard coco coco_shards

    Example: botvision train finetune --data s3://bucket/coco_shards
    """
    from rich.console import Console

    from botvision.cli.display import counting_steps
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
    print(f"the shards are in {out}")
