"""``datahub export``: a packed dataset somewhere else, unchanged."""

from __future__ import annotations

import time

import click

from datahub.cli.app import App
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes
from datahub.core.urls import shown


@click.command("export")
@click.argument("ref", metavar="REF")
@click.argument("dest", metavar="DEST")
@click.option(
    "--as",
    "form",
    type=click.Choice(["webdataset", "hf", "imagefolder", "croissant"]),
    default="webdataset",
    show_default=True,
    help="webdataset: the packed folder unchanged, which Hugging Face and Energon read, too.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Look at DEST, say what would be written, and write nothing.")
@click.pass_obj
def command(app: App, ref: str, dest: str, form: str, dry_run: bool) -> None:
    """Copy a packed dataset to DEST, a folder or any fsspec URL, verifying it on the way.

    DEST receives exactly the dataset's files and must hold nothing else; an export that was broken off is taken up
    again. For a store that others read, export to STORE/datasets/NAME/VERSION/VARIANT.
    """
    from datahub.store import export
    from datahub.store.find import find

    located = find(app.settings, Ref.parse(ref))
    if dry_run:
        plan = export.plan(located, dest, form=form)
        for line in plan.lines():
            app.echo(line)
        app.emit({"ref": str(located.ref), "url": shown(plan.url), "files": list(plan.files), "bytes": plan.bytes})
        return
    began = time.monotonic()
    with app.listener() as listener:
        done = export.export(located, dest, form=form, listener=listener)
    seconds, place = time.monotonic() - began, shown(done.url)
    app.echo(f"{located.ref}: {done.files} files, {format_bytes(done.bytes)} written to {place} in {seconds:.1f} s")
    app.emit({"ref": str(located.ref), "url": place, "files": done.files, "bytes": done.bytes})
