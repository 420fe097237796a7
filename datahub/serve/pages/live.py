"""How the server does now: what is sent and fetched a second, hits, disk, fills, and where each job waits.

Nothing is measured while nobody looks: a rate is of the time between two looks, which the answer says.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from datahub.core.errors import DatahubError
from datahub.core.sizes import format_bytes
from datahub.serve.metrics import counted
from datahub.serve.state import Server
from datahub.wire.messages import Job, Warming

APART, BACK = 1.0, 10.0
"""Seconds between two readings at least, and how far back a rate looks, where somebody has looked since."""
KEPT = 64
Counts = Mapping[str, Mapping[str, float]]
"""Metric -> dataset or job -> value; "" for what has no such label."""


@dataclass(frozen=True, slots=True)
class Reading:
    when: float
    counts: Counts

    def total(self, name: str) -> float:
        return sum(self.counts.get(name, {}).values())

    def of(self, name: str, label: str) -> float:
        return self.counts.get(name, {}).get(label, 0.0)


@dataclass(frozen=True, slots=True)
class JobNow:
    """``waiting``: the share of the time that its requests waited for blocks, summed over all that ran at once.

    ``hit_rate``: of the pieces of its bodies that were here when they were asked for; None where it asked for none.
    """

    job: Job
    progress: float | None
    here: float | None
    sent: float
    waited: float
    waiting: float
    hit_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """``span``: the seconds that rates are of. ``hit_rate``: None where nothing was asked for."""

    span: float
    sending: float
    fetching: float
    sent: float
    fetched: float
    hit_rate: float | None
    used: int | None
    limit: int
    free: int | None
    filling: int
    jobs: list[JobNow]
    warming: list[Warming]
    hits: Mapping[str, float] = field(default_factory=dict)
    sent_by: Mapping[str, float] = field(default_factory=dict)
    cached: Mapping[str, int] = field(default_factory=dict)


class Pulse:
    """One process's readings of the numbers of all. Called from threads."""

    def __init__(self, server: Server) -> None:
        self._server, self._lock = server, threading.Lock()
        self._readings = deque([Reading(time.monotonic(), counted(server.metrics))], maxlen=KEPT)

    def look(self) -> Now:
        new, old = self._read()
        span = max(new.when - old.when, 1e-9)
        server = self._server
        used, filling, cached = _books(server)
        hits, misses = new.total("datahub_hits_total"), new.total("datahub_misses_total")

        def rate(name: str) -> float:
            return max(0.0, new.total(name) - old.total(name)) / span

        return Now(
            span=span,
            sending=rate("datahub_sent_bytes_total"),
            fetching=rate("datahub_origin_bytes_total"),
            sent=new.total("datahub_sent_bytes_total"),
            fetched=new.total("datahub_origin_bytes_total"),
            hit_rate=hits / (hits + misses) if hits + misses and new.total("datahub_sent_bytes_total") else None,
            used=used,
            limit=server.cache.limit or 0,
            free=_free(server.cache.folder),
            filling=filling,
            jobs=[self._job(each, cached, new, old, span) for each in _jobs(server)],
            warming=_warming(server),
            hits=new.counts.get("datahub_hits_total", {}),
            sent_by=new.counts.get("datahub_sent_bytes_total", {}),
            cached=cached,
        )

    def _read(self) -> tuple[Reading, Reading]:
        """Now, and what it is compared with: the newest reading that is old enough, else the oldest."""
        with self._lock:
            now = time.monotonic()
            new = Reading(now, counted(self._server.metrics))
            old = next((each for each in reversed(self._readings) if now - each.when >= BACK), self._readings[0])
            if now - self._readings[-1].when >= APART:
                self._readings.append(new)
            return new, old

    def _job(self, job: Job, cached: Mapping[str, int], new: Reading, old: Reading, span: float) -> JobNow:
        waited = new.of("datahub_job_wait_seconds_total", job.job)
        before = old.of("datahub_job_wait_seconds_total", job.job)
        hits, misses = (new.of(f"datahub_job_{name}_total", job.job) for name in ("hits", "misses"))
        samples, here = None, None
        variant = next((each for each in self._server.library.variants() if str(each.ref) == job.dataset), None)
        if variant is not None:
            samples = variant.record.splits[job.split].samples if job.split in variant.record.splits else None
            size = variant.record.bytes()
            here = 1.0 if variant.folder is not None or not size else min(1.0, cached.get(job.dataset, 0) / size)
        return JobNow(
            job=job,
            progress=min(1.0, job.position / samples) if samples else None,
            here=here,
            sent=new.of("datahub_job_bytes_total", job.job),
            waited=waited,
            waiting=max(0.0, waited - before) / span,
            hit_rate=hits / (hits + misses) if hits + misses else None,
        )


PULSE: web.AppKey[Pulse] = web.AppKey("pulse", Pulse)


def told(now: Now) -> dict[str, object]:
    """What a page shows and `live.json` says: texts by name, and rows of texts."""
    disk = "unknown" if now.used is None else format_bytes(now.used)
    texts = {
        "sending": f"{format_bytes(now.sending)}/s",
        "fetching": f"{format_bytes(now.fetching)}/s",
        "sent": format_bytes(now.sent),
        "fetched": format_bytes(now.fetched),
        "hits": _percent(now.hit_rate),
        "disk": disk,
        "quota": f"of {format_bytes(now.limit)}" if now.limit else "no quota",
        "free": "unknown" if now.free is None else format_bytes(now.free),
        "filling": f"{now.filling:,}",
        "span": f"{now.span:.0f} s",
    }
    summary = (
        f"Sending {texts['sending']}, fetching {texts['fetching']}, hit rate {texts['hits']}, "
        f"{texts['filling']} blocks being fetched, {len(now.jobs)} jobs."
    )
    return {
        "texts": texts,
        "summary": summary,
        "used": now.used / now.limit if now.used is not None and now.limit else 0.0,
        "jobs": [_job_row(each) for each in now.jobs],
        "warming": [_warming_row(each) for each in now.warming],
    }


def _job_row(each: JobNow) -> list[str]:
    job = each.job
    return [
        job.job,
        f"{job.dataset} {job.split}",
        f"epoch {job.epoch}, " + (f"{each.progress:.0%}" if each.progress is not None else f"{job.position:,}"),
        "unknown" if each.here is None else f"{each.here:.0%}",
        format_bytes(each.sent) + (f", {each.hit_rate:.0%} hits" if each.hit_rate is not None else ""),
        f"{each.waited:,.1f} s",
        _where(each),
    ]


def _where(each: JobNow) -> str:
    """In words, what a job waits for."""
    if each.waiting >= 0.02:
        return f"waits for blocks, {each.waiting:.0%} of the time"
    return "does not wait for this server"


def _warming_row(each: Warming) -> list[str]:
    state = "running" if each.running else f"stopped: {each.error}" if each.error else "done"
    return [each.ref, f"{format_bytes(each.done)} of {format_bytes(each.bytes)}", state]


def _percent(share: float | None) -> str:
    return "nothing asked yet" if share is None else f"{share:.1%}"


def _books(server: Server) -> tuple[int | None, int, dict[str, int]]:
    """Bytes and fills of the cache, and bytes by dataset; a disk that fails is no reason to tell nothing."""
    with suppress(sqlite3.Error, OSError, DatahubError):
        usage = server.cache.usage()
        return usage.bytes, usage.filling, server.holdings.sizes()
    return None, 0, {}


def _free(folder: Path) -> int | None:
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    with suppress(OSError):
        return shutil.disk_usage(folder).free
    return None


def _jobs(server: Server) -> list[Job]:
    with suppress(DatahubError):
        return server.jobs.alive()
    return []


def _warming(server: Server) -> list[Warming]:
    with suppress(sqlite3.Error, OSError, DatahubError):
        return [said for _, said in server.warmer.wishes()]
    return []
