"""``datahub verify``: does a packed dataset hold what its record says?"""

from __future__ import annotations

import time

import click

from datahub.cli.app import App
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes

HOW = {
    "quick": "presence and size of every file",
    "digests": "SHA-256 of every file and block",
    "deep": "every digest, and every image decoded",
}


@click.command("verify")
@click.argument("ref", metavar="REF")
@click.option("--quick", is_flag=True, help="Presence and sizes only; no data is read.")
@click.option("--deep", is_flag=True, help="Also decode every image, and check shards, index and offsets together.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="Threads. Default: one a processor.")
@click.pass_obj
def command(app: App, ref: str, quick: bool, deep: bool, jobs: int | None) -> None:
    """Check a packed dataset against its digests; every problem is told at once."""
    if quick and deep:
        raise click.UsageError("--quick and --deep exclude each other.")
    from datahub.store.find import find
    from datahub.store.verify import verify

    depth = "quick" if quick else "deep" if deep else "digests"
    began = time.monotonic()
    located = find(app.settings, Ref.parse(ref))
    with app.listener() as listener:
        verify(located, quick=quick, deep=deep, jobs=jobs, listener=listener)
    seconds = time.monotonic() - began
    record = located.record
    size = format_bytes(record.bytes())
    app.echo(f"{located.ref} is whole: {len(record.files)} files, {size}; {HOW[depth]}, in {seconds:.1f} s")
    app.emit(
        {
            "ref": str(located.ref),
            "path": str(located.path),
            "depth": depth,
            "files": len(record.files),
            "bytes": record.bytes(),
            "seconds": round(seconds, 3),
        }
    )
