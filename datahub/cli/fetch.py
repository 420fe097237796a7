"""``datahub fetch``: download, verify, pack."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from datahub.cli import packing
from datahub.cli.app import App
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes

if TYPE_CHECKING:
    from datahub.acquire import Verified
    from datahub.pack.fetch import Target


@click.command("fetch")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@click.option("--from", "from_", metavar="DIR|URL", help="Where published files are: NAME/FILENAME. [DATAHUB_FROM]")
@click.option("--download-only", is_flag=True, help="Stop after verifying the published files.")
@click.option("--delete-downloads", is_flag=True, help="Remove the published files once they are packed.")
@click.option("--accept-licence", is_flag=True, help="Accept the publisher's terms.")
@click.option("--replace", is_flag=True, help="Pack again and put it in the place of what is there.")
@packing.stats
@packing.damaged
@click.option("--executor", metavar="WHERE", help="Where packing runs: local, dask://HOST or ray://HOST.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="Processes to pack with, connections to download with.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("-y", "yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(
    app: App, /, refs: tuple[str, ...], from_: str | None, download_only: bool, dry_run: bool, yes: bool, **how: Any
) -> None:
    """Download, verify and pack datasets. A dataset that is packed already is left alone."""
    from datahub.pack.fetch import Options

    if from_:
        app.flags["from_"] = from_
    options = Options(
        replace=how["replace"],
        accept_licence=how["accept_licence"],
        delete_downloads=how["delete_downloads"],
        jobs=how["jobs"],
        stats=how["stats"],
        damaged=how["damaged"],
        executor=how["executor"],
    )
    wanted = [Ref.parse(text) for text in refs]
    if not dry_run and not yes:
        _ask(app, wanted, options)
    act = _plan if dry_run else _download if download_only else _fetch
    results = [act(app, ref, options) for ref in wanted]
    app.emit(results if len(results) > 1 else results[0])


LARGE = 20 * 10**9
"""Bytes to download from which a person at a terminal is asked first."""


def _ask(app: App, refs: list[Ref], options: Any) -> None:
    if not sys.stdin.isatty():
        return
    from datahub.pack import fetch

    for ref in refs:
        wanted = fetch.target(ref, app.settings)
        if fetch.present(wanted, app.settings) is None:
            missing = fetch.acquire_plan(wanted, app.settings, accept_licence=options.accept_licence).bytes_missing or 0
            if missing > LARGE:
                click.confirm(f"{wanted.ref}: {format_bytes(missing)} to download. Go on?", abort=True, err=True)


def _plan(app: App, ref: Ref, options: Any) -> dict[str, Any]:
    from datahub.pack import fetch

    wanted = fetch.target(ref, app.settings)
    if not options.replace and (located := fetch.present(wanted, app.settings)):
        app.echo(f"{wanted.ref} is packed at {located.path}; nothing to do")
        return {"ref": str(wanted.ref), "path": str(located.path), "fresh": False}
    fetch.check(wanted, options)
    stored = fetch.stored_base(wanted, app.settings)
    if stored.source is not None:
        return _packing(app, stored, (), options, {"ref": str(wanted.ref)})
    plan = fetch.acquire_plan(wanted, app.settings, accept_licence=options.accept_licence)
    app.echo(f"{wanted.ref}")
    for line in plan.lines():
        app.echo(f"  {line}")
    document: dict[str, Any] = {"ref": str(wanted.ref), "download": plan.to_dict()}
    if all(item.state == "verified" for item in plan.items):
        from datahub.acquire import run

        return _packing(app, wanted, run(plan, app.settings), options, document)
    app.echo("  then pack: shards are planned once the files are here")
    return document


def _packing(
    app: App, wanted: Target, files: tuple[Verified, ...], options: Any, document: dict[str, Any]
) -> dict[str, Any]:
    """What packing ``files``, or a variant that is packed already, will do."""
    from datahub.pack import fetch
    from datahub.pack.run import workers

    _, packing = fetch.pack_plan(wanted, files, app.settings, options)
    if not files:
        app.echo(f"{wanted.ref}, from {wanted.base} as it is packed")
    for line in packing.lines(workers(packing, options.jobs)):
        app.echo(f"  {line}")
    return {**document, "pack": packing.to_dict()}


def _download(app: App, ref: Ref, options: Any) -> dict[str, Any]:
    from datahub.pack import fetch

    wanted = fetch.target(ref, app.settings)
    with app.listener() as listener:
        files = fetch.download(wanted, app.settings, options, listener)
    for each in files:
        app.echo(f"{each.path}  sha256:{each.sha256}")
    return {"ref": str(wanted.ref), "files": [{"path": str(each.path), "sha256": each.sha256} for each in files]}


def _fetch(app: App, ref: Ref, options: Any) -> dict[str, Any]:
    from datahub.pack.fetch import fetch

    began = time.monotonic()
    with app.listener() as listener:
        done = fetch(ref, app.settings, options, listener)
    seconds = time.monotonic() - began
    how = f"fetched and packed in {seconds:.1f} s" if done.fresh else "is packed already"
    app.echo(f"{done.ref} {how}: {done.path}")
    return {"ref": str(done.ref), "path": str(done.path), "fresh": done.fresh, "seconds": round(seconds, 3)}
