"""``/v1/jobs``: jobs say what they read and how far they are. Whoever may read may say it."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

import msgspec
from aiohttp import web

from datahub.core.errors import BadReference
from datahub.core.refs import Ref
from datahub.serve import answers
from datahub.serve.bodies import body_of
from datahub.serve.jobs import TooManyJobs
from datahub.serve.state import SERVER, Server
from datahub.wire.messages import Job, JobAsked, Jobs
from datahub.wire.paths import JOBS

routes = web.RouteTableDef()


@routes.post(JOBS)
async def say(request: web.Request) -> web.StreamResponse:
    server = request.app[SERVER]
    try:
        asked = msgspec.json.decode(await body_of(request), type=JobAsked)
        ref = Ref.parse(asked.dataset)
    except (msgspec.DecodeError, UnicodeDecodeError, BadReference) as error:
        return answers.failure(400, "BadJob", f"not a job: {error}")
    if not (ref.version and ref.variant):
        return answers.failure(400, "BadJob", "dataset: write NAME@VERSION/VARIANT")
    variant = await server.variant(ref)
    if variant is None:
        return answers.not_found(f"dataset {ref}")
    if asked.order is not None and asked.order.batch % asked.order.lanes:
        return answers.failure(400, "BadJob", "order: the batch is not a multiple of the lanes")
    if asked.split not in variant.record.splits:
        return answers.failure(400, "BadJob", f"{ref} has no split {asked.split}")
    try:
        return answers.message(await server.in_thread(lambda: _said(server, asked)))
    except TooManyJobs as error:
        return answers.failure(429, "TooManyJobs", str(error))


@routes.get(JOBS)
async def jobs(request: web.Request) -> web.StreamResponse:
    server = request.app[SERVER]
    found = await server.in_thread(server.jobs.alive)
    return answers.message(Jobs(jobs=[_shown(each) for each in found]))


@routes.delete(JOBS + "/{job:[A-Za-z0-9._-]{1,64}}")
async def end(request: web.Request) -> web.StreamResponse:
    server, name = request.app[SERVER], request.match_info["job"]

    def work() -> bool:
        with suppress(sqlite3.Error, OSError):  # they end by themselves later
            server.holdings.end(name)
        return server.jobs.end(name)

    if not await server.in_thread(work):
        return answers.not_found(f"job {name}")
    return web.Response(status=204, headers=answers.COMMON)


def _said(server: Server, asked: JobAsked) -> Job:
    """A job's leases last as long as it does: they are renewed as it is, and so are those of its run."""
    with suppress(sqlite3.Error, OSError):
        for name in filter(None, {asked.job, asked.run}):
            server.holdings.renew(name, asked.ttl)
    return _shown(server.jobs.say(asked))


def _shown(job: Job) -> Job:
    """What is told of a job: not the bitmap, which can be long and is of no use to others."""
    return msgspec.structs.replace(job, kept="", servers=[], here="")
