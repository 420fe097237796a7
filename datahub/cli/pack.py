"""``datahub pack``: a source into shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datahub.cli import packing
from datahub.cli.app import App
from datahub.core.errors import BadArgument
from datahub.core.refs import Ref

if TYPE_CHECKING:
    from datahub.pack.fetch import Options, Target
    from datahub.pack.sources import Reading


@click.command("pack")
@click.argument("source", metavar="SOURCE")
@click.argument("ref", metavar="REF")
@click.option("--split", metavar="train=90%,val=10%", help="Splits by the hash of each image's name, or by number.")
@click.option("--images", metavar="DIR|ARCHIVE", help="Where annotation rows' images are. [beside the annotations]")
@click.option("--columns", metavar="image=NAME,...", help="Columns that hold image, label and split, if not plain.")
@click.option("--types", metavar="NAME=boxes:xywh,...", help="Types of further columns: boxes, labels, mask, ...")
@click.option("--empty-classes", is_flag=True, help="Class folders without images are classes, too.")
@click.option("--masks", is_flag=True, help="Segmentations become masks of the objects (extra coco).")
@click.option("--from", "from_", metavar="DIR|URL", help="Where published files are: NAME/FILENAME. [DATAHUB_FROM]")
@click.option("--to", metavar="URL", help="Write shards straight to URL/NAME/VERSION/VARIANT (s3://, gs://, ...).")
@click.option("--replace", is_flag=True, help="Put it in the place of what is there.")
@packing.stats
@packing.damaged
@click.option("--task", metavar="K/N", help="Pack part K of N (counted from 1); the last one commits.")
@click.option("--executor", metavar="WHERE", help="local, dask://HOST or ray://HOST.")
@click.option("--accept-licence", is_flag=True, help="Accept the publisher's terms.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="Processes; the bytes do not depend on it.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be packed, and pack nothing.")
@click.option("-y", "yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(app: App, /, source: str, ref: str, from_: str | None, dry_run: bool, yes: bool, **how: Any) -> None:
    """Pack SOURCE as REF.

    \b
    SOURCE: imagefolder:DIR|ARCHIVE   <class>/<image> or <split>/<class>/<image>
            csv:FILE json:FILE jsonl:FILE   a row an image
            coco:DIR|FILE.json        boxes, keypoints and (--masks) masks, as COCO publishes them
            parquet:FILE|DIR          image bytes in a column
            wds:SHARDS                WebDataset shards, {000..099} and URLs
            ilsvrc:DIR                the ImageNet archives
            shapes:5000               generated
            REF                       another variant: imagenet imagenet/tiled
    """
    from datahub.pack.fetch import Options, check, download, pack_files
    from datahub.pack.sources import target_of

    if from_:
        app.flags["from_"] = from_
    options = Options(
        replace=how["replace"],
        accept_licence=how["accept_licence"],
        jobs=how["jobs"],
        stats=how["stats"],
        damaged=how["damaged"],
        executor=how["executor"],
        task=how["task"],
        to=how["to"],
    )
    began = time.monotonic()
    with app.listener() as listener:
        wanted = target_of(source, Ref.parse(ref), app.settings, _reading(how), listener)
    check(wanted, options)
    if dry_run:
        _plan(app, wanted, options)
        return
    with app.listener() as listener:
        files = download(wanted, app.settings, options, listener)
        path = pack_files(wanted, files, app.settings, options, listener)
    seconds = time.monotonic() - began
    if path is None:
        app.echo(f"{wanted.ref}: part {options.task} packed in {seconds:.1f} s; other parts are missing yet")
    else:
        app.echo(f"{wanted.ref} packed in {seconds:.1f} s: {path}")
    app.emit({"ref": str(wanted.ref), "path": path, "task": options.task})


def _reading(how: dict[str, Any]) -> Reading:
    from datahub.pack.sources import Reading
    from datahub.pack.splitting import Shares

    return Reading(
        split=Shares.parse(how["split"]) if how["split"] else None,
        images=Path(how["images"]) if how["images"] else None,
        columns=_columns(how["columns"]),
        types=_types(how["types"]),
        empty_classes=how["empty_classes"],
        masks=how["masks"],
    )


def _columns(text: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        what, equals, name = part.partition("=")
        if not equals or what not in ("image", "label", "split") or not name:
            hint = "write --columns image=path,label=kind,split=part"
            raise BadArgument("columns", text, f"cannot read {part!r}", hint)
        found[what] = name
    return found


def _types(text: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        column, equals, kind = part.partition("=")
        if not equals or not column or not kind:
            raise BadArgument("types", text, f"cannot read {part!r}", "write --types boxes=boxes:xywh,kinds=labels")
        found[column] = kind
    return found


def _plan(app: App, wanted: Target, options: Options) -> None:
    from datahub.pack.fetch import acquire_plan, download, pack_plan
    from datahub.pack.run import workers

    lines: Sequence[str] = []
    document: dict[str, Any] = {"ref": str(wanted.ref)}
    here = wanted.source is not None
    if not here:
        files = acquire_plan(wanted, app.settings, accept_licence=options.accept_licence)
        here = all(item.state == "verified" for item in files.items)
        lines = files.lines()
        document["download"] = files.to_dict()
    if here:
        with app.listener() as listener:
            _, plan = pack_plan(wanted, download(wanted, app.settings, options), app.settings, options, listener)
        lines = plan.lines(workers(plan, options.jobs))
        document["pack"] = plan.to_dict()
    for line in [str(wanted.ref), *(f"  {line}" for line in lines)]:
        app.echo(line)
    app.emit(document)
