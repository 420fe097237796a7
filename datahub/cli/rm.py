"""``datahub rm``: a packed dataset out of the store."""

from __future__ import annotations

import click

from datahub.cli.app import App
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes

LARGE = 10**9
"""Bytes from which a person is asked first."""


@click.command("rm")
@click.argument("ref", metavar="REF")
@click.option("--downloads", is_flag=True, help="Also the published files that were downloaded for this version.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("-y", "yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(app: App, ref: str, downloads: bool, dry_run: bool, yes: bool) -> None:
    """Remove a packed dataset. Read-only stores (DATAHUB_STORES) are never touched."""
    from datahub.store import remove
    from datahub.store.find import find_place

    place = find_place(app.settings, Ref.parse(ref))
    removal = remove.plan(place, app.settings, downloads=downloads)
    size = format_bytes(removal.bytes)
    if not dry_run:
        if removal.bytes >= LARGE:
            app.confirm(f"Remove {place.ref}, {size}?", yes)
        removal = remove.remove(place, app.settings, downloads=downloads)
    for path in removal.paths:
        app.echo(f"{'would remove' if dry_run else 'removed'} {path}")
    app.echo(f"{place.ref}: {size}")
    paths = [str(path) for path in removal.paths]
    app.emit({"ref": str(place.ref), "paths": paths, "bytes": removal.bytes, "removed": not dry_run})
