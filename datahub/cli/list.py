"""``datahub list``: the known datasets, or those packed on this disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from datahub.cli.app import App
from datahub.cli.tables import table
from datahub.core.errors import DatahubError, ManifestInvalid
from datahub.core.sizes import format_bytes

if TYPE_CHECKING:
    from datahub.registry import Entry
    from datahub.store.find import Located


@click.command("list")
@click.argument("query", required=False)
@click.option("--local", is_flag=True, help="Only what is packed on this disk, and where.")
@click.option("--task", metavar="TASK", help="Only of this task, e.g. classification.")
@click.option("--licence", "--license", metavar="LICENCE", help="Only under this licence, e.g. CC-BY.")
@click.pass_obj
def command(app: App, query: str | None, local: bool, task: str | None, licence: str | None) -> None:
    """Known datasets, narrowed by QUERY: a part of the name or title.

    TRIED says how far each was run for real: on the published files, on a miniature of them, or never.
    """
    if local:
        _local(app, query, task, licence)
        return
    from datahub.registry import catalog

    known = catalog(app.settings)
    entries = known.entries(query, task, licence)
    app.emit(
        {
            "datasets": [each.to_dict() for each in entries],
            "broken": [_problems(each) for each in known.broken],
        }
    )
    _show(app, entries)
    if not entries:
        app.echo(_nothing(query, known.names()))
    for error in known.broken:
        if not app.quiet and not app.json:
            click.echo(f"left out: {error}", err=True)


def _show(app: App, entries: list[Entry]) -> None:
    if not entries:
        return
    times = Counter(each.name for each in entries)
    header = ("NAME", "TASK", "CLASSES", "SAMPLES", "DOWNLOAD", "LICENCE", "TRIED")
    rows = [
        (
            each.name if times[each.name] == 1 else f"{each.name}@{each.version}",
            each.task,
            f"{each.classes:,}" if each.classes else "-",
            f"{each.samples:,}",
            "?" if each.bytes is None else format_bytes(each.bytes) if each.bytes else "-",
            each.licence or "-",
            each.tried,
        )
        for each in entries
    ]
    for line in table(header, rows, right=("CLASSES", "SAMPLES", "DOWNLOAD")):
        app.echo(line)


def _local(app: App, query: str | None, task: str | None, licence: str | None) -> None:
    from datahub.store.find import list_local

    found = [each for each in list_local(app.settings) if _wanted(each, query, task, licence)]
    app.emit({"datasets": [packed(each) for each in found]})
    if not found:
        narrowed = " that matches" if query or task or licence else ""
        app.echo(f"nothing{narrowed} is packed in {app.settings.home}; run `datahub fetch NAME`")
        return
    rows = [
        (
            str(each.ref),
            f"{sum(split.samples for split in each.record.splits.values()):,}",
            format_bytes(each.record.bytes()),
            str(each.path),
        )
        for each in found
    ]
    for line in table(("REF", "SAMPLES", "SIZE", "PATH"), rows, right=("SAMPLES", "SIZE")):
        app.echo(line)


def _wanted(each: Located, query: str | None, task: str | None, licence: str | None) -> bool:
    record = each.record
    pairs = ((query, f"{record.manifest.name} {record.title}"), (task, record.task), (licence, record.licence or ""))
    return all(not wanted or wanted.lower() in text.lower() for wanted, text in pairs)


def packed(each: Located) -> dict[str, Any]:
    """What a JSON document says of a packed variant."""
    record = each.record
    return {
        "ref": str(each.ref),
        "path": str(each.path),
        "title": record.title,
        "task": record.task,
        "licence": record.licence,
        "splits": {name: split.samples for name, split in record.splits.items()},
        "bytes": record.bytes(),
    }


def _problems(error: DatahubError) -> dict[str, Any]:
    problems = error.problems if isinstance(error, ManifestInvalid) else ()
    return {
        "path": getattr(error, "path", ""),
        "message": error.message,
        "problems": [{"place": each.place, "message": each.message} for each in problems],
    }


def _nothing(query: str | None, names: Iterable[str]) -> str:
    from datahub.registry.nearest import nearest

    near = nearest(query, names) if query else []
    return f"nothing matches; did you mean {' or '.join(near)}?" if near else "nothing matches"
