"""``datahub cache``: what a cache server holds, and what it is to keep."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from datahub.cli.app import App
from datahub.core.errors import BadArgument, LeaseRefused, NotServed, Offline
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes

if TYPE_CHECKING:
    from datahub.wire.messages import Hold, Message, Status
    from datahub.wire.messages import Warming as Told

T = TypeVar("T", bound="Message")
SECONDS = 60.0
"""That an answer may take."""
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
EVERY = 1.0


@click.group("cache")
def command() -> None:
    """What a cache server holds, and what it is to keep: warm, pin, lease, evict.

    The server is --server, or DATAHUB_SOURCE; the token DATAHUB_TOKEN or the file DATAHUB_TOKEN_FILE.
    """


def _server(function: Callable[..., None]) -> Callable[..., None]:
    option = click.option("--server", metavar="URL", help="The cache server. [DATAHUB_SOURCE]")
    return option(click.pass_obj(function))


@command.command("status")
@_server
def status(app: App, server: str | None) -> None:
    """Bytes held, datasets, pins, leases, and what is being warmed."""
    from datahub.wire import paths

    _show(app, _asked(app, server, paths.CACHE))


@command.command("warm")
@click.argument("ref")
@click.option("--split", default="", help="Only its shards.")
@click.option("--wait", is_flag=True, help="Until it is done.")
@_server
def warm(app: App, server: str | None, ref: str, split: str, wait: bool) -> None:
    """Fetch a dataset into the cache before it is asked for."""
    from datahub.wire import messages, paths

    told = _read(_said(app, server, paths.WARM, ref, split=split), messages.Warming)
    while wait and told.running:
        told = _progress(app, server, told)
    app.echo(_warming(told))
    app.emit(msgspec.to_builtins(told))
    if wait and told.failed:
        raise click.exceptions.Exit(4)


@command.command("pin")
@click.argument("ref")
@_server
def pin(app: App, server: str | None, ref: str) -> None:
    """Never evict a dataset, until it is unpinned."""
    from datahub.wire import paths

    _granted(app, _said(app, server, paths.PIN, ref), f"{ref} is pinned")


@command.command("unpin")
@click.argument("ref")
@_server
def unpin(app: App, server: str | None, ref: str) -> None:
    """Let a dataset be evicted again."""
    from datahub.wire import paths

    _said(app, server, paths.UNPIN, ref)
    app.echo(f"{ref} is not pinned any more")
    app.emit({"ref": ref, "pinned": False})


@command.command("lease")
@click.argument("ref")
@click.option("--job", required=True, help="Who wants it: any name.")
@click.option("--for", "span", default="1h", show_default=True, metavar="TIME", help="Like 90m, 12h or 3d.")
@click.option("--end", is_flag=True, help="End the job's lease.")
@_server
def lease(app: App, server: str | None, ref: str, job: str, span: str, end: bool) -> None:
    """Keep a dataset for a job; refused at once where it does not fit."""
    from datahub.wire import paths

    seconds = 0.0 if end else _seconds(span)
    answer = _said(app, server, paths.LEASE, ref, job=job, seconds=seconds)
    if end:
        app.echo(f"{job} has no lease of {ref} any more")
        app.emit({"ref": ref, "job": job, "leased": False})
    else:
        _granted(app, answer, f"{ref} is kept for {job}, {_time(seconds)}")


@command.command("evict")
@click.argument("ref")
@_server
def evict(app: App, server: str | None, ref: str) -> None:
    """Let go of a dataset's blocks now. Nothing of the server's own store goes."""
    from datahub.wire import messages, paths

    found = _read(_said(app, server, paths.EVICT, ref), messages.Evicted)
    kept = f"; {format_bytes(found.kept)} stay, for they are being read or are wanted soon" if found.kept else ""
    app.echo(f"{format_bytes(found.freed)} of {found.ref} evicted{kept}")
    app.emit(msgspec.to_builtins(found))


# -- asking -----------------------------------------------------------------------------------------------------------


def _said(app: App, server: str | None, path: str, ref: str, **facts: Any) -> bytes:
    """The answer to a command. Raises `LeaseRefused`, `NotServed`, `BadArgument`, and what a client raises."""
    from datahub.wire import messages
    from datahub.wire.client import ServerClient

    Ref.parse(ref)
    body, url = messages.encode(messages.Command(ref=ref, **facts)), _url(app, server)
    answer = ServerClient(url).send("POST", path, body, SECONDS, accept=(400, 404, 409))
    failure = messages.failure_of(answer)
    if failure is None or not failure.error:
        return answer
    if failure.error == "NotFound":
        raise NotServed(url, ref, failure.message)
    if failure.error in ("LeaseRefused", "Held", "OnlyCopy", "NotHeld"):
        raise LeaseRefused(ref, failure.message, failure.next)
    name, value = {"BadJob": ("--job", facts.get("job")), "BadTime": ("--for", facts.get("seconds"))}.get(
        failure.error, ("REF", ref)
    )
    raise BadArgument(name, value, failure.message, failure.next)


def _asked(app: App, server: str | None, path: str) -> Status:
    from datahub.wire import messages
    from datahub.wire.client import ServerClient

    return _read(ServerClient(_url(app, server)).whole(path, SECONDS), messages.Status)


def _read(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.DecodeError as error:
        hint = "give the address of a cache server"
        raise BadArgument("--server", answer[:40], f"answers as no cache server does: {error}", hint) from error


def _url(app: App, server: str | None) -> str:
    from datahub.wire.servers import split

    found = split(server or app.settings.source or "")
    if len(found) != 1 or not found[0]:
        given = "none is given" if not found[0] else "it is one that is asked, not several"
        raise BadArgument("--server", server or app.settings.source, given, "give --server http://HOST:PORT")
    if app.settings.offline:
        raise Offline(f"asking {found[0]}")
    return found[0]


def _progress(app: App, server: str | None, told: Told) -> Told:
    """The same a moment later."""
    import time

    from datahub.wire import paths

    time.sleep(EVERY)
    found = [each for each in _asked(app, server, paths.CACHE).warming if each.ref == told.ref]
    return found[0] if found else msgspec.structs.replace(told, running=False, error="it was evicted meanwhile")


def _granted(app: App, answer: bytes, text: str) -> None:
    from datahub.wire import messages

    found = _read(answer, messages.Verdict)
    app.echo(f"{text}: {format_bytes(found.bytes)} of {format_bytes(found.room)} that were free for it")
    app.emit(msgspec.to_builtins(found))


# -- showing ----------------------------------------------------------------------------------------------------------


def _show(app: App, found: Status) -> None:
    from datahub.cli.tables import table

    limit = f" of {format_bytes(found.limit)}" if found.limit else ""
    app.echo(f"{format_bytes(found.bytes)}{limit} in {found.blocks} blocks, {found.filling} being fetched")
    reasons = {each.ref: "" for each in found.cached}
    for hold in found.held:
        reasons[hold.ref] = ", ".join(filter(None, [reasons.get(hold.ref, ""), _why(hold)]))
    here = {each.ref: each for each in found.cached}
    rows = []
    for ref, why in sorted(reasons.items()):
        each = here.get(ref)
        of = format_bytes(each.of) if each and each.of else "?"
        rows.append((ref, format_bytes(each.bytes if each else 0), of, why))
    for line in table(("DATASET", "HERE", "OF", "KEPT"), rows, right=("HERE", "OF")) if rows else ():
        app.echo(line)
    for told in found.warming:
        app.echo(_warming(told))
    app.emit(_plain(found))


def _why(hold: Hold) -> str:
    return f"for {hold.job}, {_time(hold.seconds or 0)}" if hold.job else "pinned"


def _warming(told: Told) -> str:
    state = "being warmed" if told.running else "warm" if told.done == told.bytes else "warmed in part"
    error = f"; {told.error}" if told.error else ""
    if not told.bytes:
        return f"{told.ref}: all of it is in the server's own store{error}"
    return f"{told.ref}: {state}, {format_bytes(told.done)} of {format_bytes(told.bytes)}{error}"


def _plain(message: Message) -> Any:
    return msgspec.to_builtins(message)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if not match or not float(match[1]):
        raise BadArgument("--for", text, "is no time", "write 90m, 12h or 3d")
    return float(match[1]) * UNITS[match[2]]


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
