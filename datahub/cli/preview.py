"""``datahub preview``: a contact sheet of a dataset's samples."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from datahub.cli.app import App
from datahub.cli.pictures import picture
from datahub.core.refs import Ref


@click.command("preview")
@click.argument("ref", metavar="REF")
@click.option("--split", metavar="NAME", help="[train, or the first there is]")
@click.option("--where", metavar="FILTER", help="Only samples whose index columns meet it: 'label == \"cat\"'.")
@click.option("--augment", metavar="PRESET", help="Show the images as this preset makes them.")
@click.option("--count", type=click.IntRange(1, 1024), default=36, help="Samples to show. [36]")
@click.option("--seed", type=int, default=0, help="Other samples, and other draws of the preset. [0]")
@click.option("--epoch", type=click.IntRange(0), default=0, help="The same. [0]")
@click.option("--shuffle/--no-shuffle", default=True, help="In a random order, or in that of the shards. [shuffled]")
@click.option("--fields", metavar="NAME,...", help="What to show beside the class. [boxes, masks, keypoints]")
@click.option("--size", type=click.IntRange(16, 1024), default=160, help="Pixels of a thumbnail. [160]")
@click.option("--columns", type=click.IntRange(1, 64), help="Thumbnails a row.")
@click.option(
    "-o", "output", callback=picture, default="preview.png", metavar="FILE", help="The picture. [preview.png]"
)
@click.pass_obj
def command(app: App, /, ref: str, output: str, fields: str | None, **options: Any) -> None:
    """Draw samples of REF with their classes, boxes, masks and keypoints, augmented if asked.

    \b
    datahub preview cifar10 --where 'label in ("cat", "dog")'
    datahub preview imagenet --augment imagenet_train_strong --epoch 3 -o seen.png
    datahub preview coco --augment imagenet_train_strong --fields boxes,masks
    """
    wanted = Ref.parse(ref)
    from datahub.loader.preview import View, preview

    names = tuple(name.strip() for name in fields.split(",") if name.strip()) if fields is not None else None
    made = preview(wanted, app.settings, View(fields=names, **options), Path(output))
    app.emit({**options, **asdict(made)})
    damaged = sum(not each["valid"] for each in made.samples)
    rest = f", {damaged} of them damaged" if damaged else ""
    app.echo(f"{made.ref} {made.split}: {len(made.samples)} of {made.of} samples{rest}")
    app.echo(f"  {output}")
