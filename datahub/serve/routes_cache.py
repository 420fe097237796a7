"""``/v1/cache``: what the cache holds, and what administrators say about it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from datahub.core.errors import DatahubError, NotWritable
from datahub.core.processes import boot
from datahub.core.refs import Ref
from datahub.core.sizes import format_bytes
from datahub.serve import answers, listing
from datahub.serve.answers import Refusal
from datahub.serve.bodies import body_of
from datahub.serve.library import Variant
from datahub.serve.state import SERVER, Server
from datahub.serve.warming import blobs_of
from datahub.store.cache import holdings
from datahub.store.cache.ledger import Hold
from datahub.wire import messages, paths
from datahub.wire.messages import LONGEST_LEASE, Cached, Command, Evicted, Status, Verdict
from datahub.wire.tokens import JOB

T = TypeVar("T")
routes = web.RouteTableDef()


@routes.get(paths.CACHE)
async def status(request: web.Request) -> web.StreamResponse:
    server = request.app[SERVER]
    return answers.message(await _booked(server, lambda: _status(server)))


@routes.post(paths.WARM)
async def warm(request: web.Request) -> web.StreamResponse:
    command, variant = await _asked(request)
    if command.split and command.split not in variant.record.splits:
        raise Refusal(404, "NotFound", f"{variant.ref} has no split {command.split}")
    server = request.app[SERVER]
    return answers.message(
        await server.in_thread(lambda: server.warmer.want(variant.ref, command.split, variant)), status=202
    )


@routes.post(paths.PIN)
async def pin(request: web.Request) -> web.StreamResponse:
    _, variant = await _asked(request)
    return await _held(request, variant, "", None)


@routes.post(paths.LEASE)
async def lease(request: web.Request) -> web.StreamResponse:
    command, variant = await _asked(request)
    if not command.job:
        raise Refusal(400, "BadJob", f"a lease is for a job, a name of the form {JOB.pattern}")
    if command.seconds == 0:
        return await _released(request, variant, command.job)
    return await _held(request, variant, command.job, command.seconds)


@routes.post(paths.UNPIN)
async def unpin(request: web.Request) -> web.StreamResponse:
    _, variant = await _asked(request)
    return await _released(request, variant, "")


@routes.post(paths.EVICT)
async def evict(request: web.Request) -> web.StreamResponse:
    _, variant = await _asked(request)
    server = request.app[SERVER]
    if all(blob.local is not None for blob in variant.blobs.values()):
        text = f"{variant.ref} is in the server's own store, not in its cache: nothing is evicted there"
        raise Refusal(409, "OnlyCopy", text, f"run `datahub rm {variant.ref}` where the server is")

    def work() -> holdings.Evicted | None:
        server.warmer.forget(variant.ref)
        return server.holdings.evict(str(variant.ref))

    found = await _booked(server, work)
    if found is None:
        text = f"{variant.ref} is pinned or leased"
        raise Refusal(409, "Held", text, "unpin it, or end its leases: `datahub cache status` names them")
    return answers.message(Evicted(ref=str(variant.ref), freed=found.freed, kept=found.kept))


async def _asked(request: web.Request) -> tuple[Command, Variant]:
    """The command, and the variant it is about. Raises `Refusal`, and what looking for a variant does."""
    try:
        command = msgspec.json.decode(await body_of(request), type=Command)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "BadCommand", f"the body is no command: {error}") from error
    if command.job and not JOB.fullmatch(command.job):
        raise Refusal(400, "BadJob", f"a job has a name of the form {JOB.pattern}")
    if not 0 <= command.seconds <= LONGEST_LEASE:
        raise Refusal(400, "BadTime", f"a lease lasts between 0 (which ends it) and {LONGEST_LEASE:.0f} seconds")
    try:
        ref = Ref.parse(command.ref)
    except DatahubError as error:
        raise Refusal(400, type(error).__name__, error.message, error.next_step) from error
    server = request.app[SERVER]
    full = ref if ref.version and ref.variant else await _full(server, ref)
    found = await server.variant(full) if full is not None else None
    if found is None:
        raise Refusal(404, "NotFound", f"there is no dataset {ref} here")
    return command, found


async def _full(server: Server, ref: Ref) -> Ref | None:
    """Newest version, default variant, among those that there are."""
    for info in await listing.of_name(server, ref.name):
        if ref.version in (None, info.version) and (info.variant == ref.variant if ref.variant else info.default):
            return Ref(info.name, info.version, info.variant)
    return None


async def _held(request: web.Request, variant: Variant, name: str, seconds: float | None) -> web.StreamResponse:
    server = request.app[SERVER]
    ref = str(variant.ref)
    found = await _booked(server, lambda: server.holdings.hold(ref, name, _size(variant), seconds))
    if found.granted:
        return answers.message(_verdict(variant, found))
    fits = await _fits(server, variant, found.room)
    size, room, limit = (format_bytes(each) for each in (found.bytes, found.room, found.limit))
    text = f"{ref} takes {size}, and of {limit} there is room for {room}"
    hint = f"{' or '.join(fits)} would fit" if fits else "unpin or evict others, or give the server a larger --quota"
    answer = msgspec.structs.replace(_verdict(variant, found), fits=fits, error="LeaseRefused", message=text, next=hint)
    return answers.message(answer, status=409)


async def _released(request: web.Request, variant: Variant, name: str) -> web.StreamResponse:
    server = request.app[SERVER]
    ref = str(variant.ref)
    if not await _booked(server, lambda: server.holdings.end(name, ref)):
        what = f"job {name} has no lease of {ref}" if name else f"{ref} is not pinned"
        raise Refusal(404, "NotHeld", what)
    return answers.message(await _booked(server, lambda: _status(server)))


async def _booked(server: Server, work: Callable[[], T]) -> T:
    """Something done to the cache's books, in a thread."""

    def done() -> T:
        try:
            return work()
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise NotWritable(str(server.cache.folder), reason) from error

    return await server.in_thread(done)


def _size(variant: Variant) -> int:
    return sum(blob.size for blob in blobs_of(variant, ""))


async def _fits(server: Server, variant: Variant, room: int) -> list[str]:
    """Other variants of the same dataset that would fit."""
    found = [info for info in await listing.of_name(server, variant.ref.name) if info.bytes <= room or info.local]
    refs = [str(Ref(info.name, info.version, info.variant)) for info in found]
    return [ref for ref in refs if ref != str(variant.ref)]


def _verdict(variant: Variant, found: holdings.Verdict) -> Verdict:
    return Verdict(
        ref=str(variant.ref),
        granted=found.granted,
        bytes=found.bytes,
        room=found.room,
        limit=found.limit,
        held=[_told(each) for each in found.held],
    )


def _told(hold: Hold) -> messages.Hold:
    return messages.Hold(ref=hold.tag, bytes=hold.bytes, job=hold.name, seconds=hold.left(time.time(), boot()))


def _status(server: Server) -> Status:
    usage = server.cache.usage()
    sizes = {str(each.ref): _size(each) for each in server.library.variants()}
    cached = [Cached(ref=ref, bytes=size, of=sizes.get(ref, 0)) for ref, size in server.holdings.sizes().items()]
    return Status(
        bytes=usage.bytes,
        limit=server.cache.limit or 0,
        blocks=usage.blocks,
        filling=usage.filling,
        cached=cached,
        held=[_told(each) for each in server.holdings.all()],
        warming=[told for _, told in server.warmer.wishes()],
    )
