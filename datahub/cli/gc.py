"""``datahub gc``: what killed runs left behind."""

from __future__ import annotations

import click

from datahub.cli.app import App
from datahub.core.sizes import format_bytes


@click.command("gc")
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Leave alone what was written since then.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.pass_obj
def command(app: App, older_than: float, dry_run: bool) -> None:
    """Remove what killed runs left behind: half-packed variants, partial downloads, trash, stale receipts.

    Packed datasets, their downloads, and what a running process uses are kept.
    """
    from datahub.cli.tables import table
    from datahub.store.gc import gc

    found = gc(app.settings, dry_run=dry_run, older_than=older_than * 3600)
    if found:
        rows = [(each.kind, format_bytes(each.bytes), str(each.path)) for each in found]
        for line in table(("KIND", "SIZE", "PATH"), rows, right=("SIZE",)):
            app.echo(line)
    total = sum(each.bytes for each in found)
    app.echo(f"{format_bytes(total)} in {len(found)} leftovers {'would be removed' if dry_run else 'removed'}")
    listed = [{"path": str(each.path), "kind": each.kind, "bytes": each.bytes} for each in found]
    app.emit({"leftovers": listed, "bytes": total, "removed": not dry_run})
