"""``datahub pack``: a source into shards."""

from __future__ import annotations

import time
from typing import Any

import click

from datahub.cli.app import App
from datahub.core.refs import Ref


@click.command("pack")
@click.argument("source", metavar="SOURCE")
@click.argument("ref", metavar="REF")
@click.option("--from", "from_", metavar="DIR|URL", help="Where published files are: NAME/FILENAME. [DATAHUB_FROM]")
@click.option("--replace", is_flag=True, help="Put it in the place of what is there.")
@click.option(
    "--stats",
    type=click.Choice(["sample", "full", "none"]),
    default="sample",
    help="Mean and std from 10,000 images, all or none.",
)
@click.option("--accept-licence", is_flag=True, help="Accept the publisher's terms.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="Processes; the bytes do not depend on it.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be packed, and pack nothing.")
@click.pass_obj
def command(app: App, /, source: str, ref: str, from_: str | None, dry_run: bool, **how: Any) -> None:
    """Pack SOURCE as REF: `shapes:5000 toy@1.0`, `shapes:train=5000,test=500 toy`, or a dataset's own REF."""
    from datahub.pack.fetch import Options, acquire_plan, download, pack_files, pack_plan
    from datahub.pack.sources import target_of

    if from_:
        app.flags["from_"] = from_
    options = Options(
        replace=how["replace"],
        accept_licence=how["accept_licence"],
        jobs=how["jobs"],
        stats=how["stats"],
    )
    wanted = target_of(source, Ref.parse(ref), app.settings)
    if dry_run:
        files = acquire_plan(wanted, app.settings, accept_licence=options.accept_licence)
        lines, document = files.lines(), {"download": files.to_dict()}
        if all(item.state == "verified" for item in files.items):
            _, plan = pack_plan(wanted, download(wanted, app.settings, options), app.settings, options)
            lines, document = plan.lines(), plan.to_dict()
        for line in [str(wanted.ref), *(f"  {line}" for line in lines)]:
            app.echo(line)
        app.emit(document)
        return
    began = time.monotonic()
    with app.listener() as listener:
        files_ = download(wanted, app.settings, options, listener)
        path = pack_files(wanted, files_, app.settings, options, listener)
    app.echo(f"{wanted.ref} packed in {time.monotonic() - began:.1f} s: {path}")
    app.emit({"ref": str(wanted.ref), "path": str(path)})
