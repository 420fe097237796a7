"""When the blocks of a server's cache are read next, worked out from what the jobs that live announced.

Positions become seconds by each job's pace, so that jobs of different paces, and of different datasets, compare.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from datahub.serve.foresight import Float, Int, Layout, Reads, share, unpacked
from datahub.serve.library import Blob
from datahub.wire.messages import Job, JobOrder
from datahub.wire.servers import ranked

NOMINAL = 1000.0
"""Samples a second of a job that has not moved yet."""
QUIET = 30.0
"""Seconds without progress after which a job is taken to slow down."""
SMOOTH = 0.5
OLD = 10.0
"""Seconds for which a job is taken to have gone on at its pace since it last said where it is."""
APART = 3.0
"""Seconds between two messages of a job. What reads more than its depth meanwhile, or from most of its blocks, cannot
be foreseen: forecasts are older than the differences between them."""
MEMORY = 256 << 20
"""Bytes of worked out reads that are kept."""


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of a split and where its samples lie in them; ``etag`` tells it from any other."""

    etag: str
    blobs: tuple[Blob, ...]
    layout: Layout
    raw: bytes
    """The digests of all blocks end to end: their keys in the cache."""
    where: tuple[tuple[int, int], ...]
    """(blob, number in it) of each block."""

    @classmethod
    def of(cls, etag: str, blobs: Sequence[Blob], layout: Layout) -> Shards:
        where = [(blob, number) for blob, each in enumerate(blobs) for number in range(len(each.raw) // 32)]
        return cls(etag, tuple(blobs), layout, b"".join(each.raw for each in blobs), tuple(where))

    def key(self, block: int) -> str:
        return self.raw[block * 32 : (block + 1) * 32].hex()


@dataclass(frozen=True, slots=True)
class View:
    """What a job will read: ``due`` seconds until each block of ``shards``, inf for those that it will not ask for.

    ``ahead``: the blocks of the next so many bytes, the first one first. ``samples`` of an epoch, so that ``progress``
    counts samples over epochs; ``until``: progress at which each block is read.
    """

    job: Job
    shards: Shards
    due: Float
    ahead: Int
    progress: int
    until: Float


class Paces:
    """Samples a second of each job, from how far it was when."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float, float]] = {}

    def of(self, job: str, now: float, progress: int) -> float:
        """0 until it has moved."""
        before, when, pace = self._seen.get(job, (progress, now, 0.0))
        if progress < before:  # it went on elsewhere
            before, when = progress, now
        if progress > before and now > when:
            latest = (progress - before) / (now - when)
            pace = latest if not pace else SMOOTH * pace + (1 - SMOOTH) * latest
            before, when = progress, now
        self._seen[job] = (before, when, pace)
        return pace * min(1.0, QUIET / max(now - when, 1e-9))

    def keep(self, jobs: Sequence[str]) -> None:
        self._seen = {name: seen for name, seen in self._seen.items() if name in jobs}


class Worked:
    """Reads of epochs, worked out once for all jobs with the same order; the least recently used are forgotten."""

    def __init__(self, most: int = MEMORY) -> None:
        self._most = most
        self._reads: OrderedDict[tuple[str, str, bytes, int], Reads] = OrderedDict()
        self._firsts: OrderedDict[tuple[str, str, bytes, int], Float] = OrderedDict()

    def reads(self, shards: Shards, order: JobOrder, epoch: int) -> Reads:
        key = (shards.etag, shards.layout.name, msgspec.json.encode(order), epoch)
        if key not in self._reads:
            self._reads[key] = Reads(shards.layout, order, epoch, shards.layout.kept(order))
        self._reads.move_to_end(key)
        while len(self._reads) > 1 and sum(each.weight for each in self._reads.values()) > self._most:
            self._reads.popitem(last=False)
        return self._reads[key]

    def knows(self, shards: Shards, job: Job) -> bool:
        assert job.order is not None
        return (shards.etag, shards.layout.name, msgspec.json.encode(job.order), job.epoch) in self._reads

    def first(self, shards: Shards, order: JobOrder, epoch: int) -> Float:
        """When each block is read first in an epoch."""
        key = (shards.etag, shards.layout.name, msgspec.json.encode(order), epoch)
        if key not in self._firsts:
            known = self._reads.get(key)
            made = known or Reads(shards.layout, order, epoch, shards.layout.kept(order))
            self._firsts[key] = made.next(0)
        self._firsts.move_to_end(key)
        while len(self._firsts) > 1 and sum(each.nbytes for each in self._firsts.values()) > self._most // 4:
            self._firsts.popitem(last=False)
        return self._firsts[key]


def view(job: Job, shards: Shards, worked: Worked, pace: Callable[[int], float], depth: int) -> View | None:
    """``pace``: samples a second, of a job that has asked for so many; ``depth``: bytes to look ahead.

    What is looked at begins where the job asks now: after what it had asked for when it spoke, and has since. None for
    a job that is too fast, or reads of too few blocks, for what it says to hold until it speaks again.
    """
    assert job.order is not None
    reads = worked.reads(shards, job.order, job.epoch)
    size, part = reads.size, share(job.order)
    here, asked = (min(int(each / part), size) for each in (job.position, job.position + job.ahead))
    progress = job.epoch * size + here
    speed = pace(job.epoch * size + asked)
    if speed * part * APART * int(shards.layout.sizes.sum()) > depth * shards.layout.samples:
        return None
    since = speed * min(OLD, max(0.0, job.ttl - job.left))
    position = min(asked + int(since), size)
    after = worked.first(shards, job.order, job.epoch + 1)
    samples = reads.next(position)
    samples = np.where(np.isinf(samples), size - position + after, samples)
    if np.median(samples) < speed * APART:
        return None
    samples = np.where(_elsewhere(job, shards), np.inf, samples)
    soonest = np.argsort(samples, kind="stable")
    soonest = soonest[: int(np.isfinite(samples).sum())]
    ahead = soonest[np.cumsum(shards.layout.sizes[soonest]) <= depth]
    return View(job, shards, samples / (speed or NOMINAL), ahead, progress, job.epoch * size + position + samples)


def _elsewhere(job: Job, shards: Shards) -> NDArray[np.bool_]:
    """Blocks that a job has itself, or asks another server for."""
    found = unpacked(job.kept, len(shards.where))
    if len(job.servers) > 1 and job.here in job.servers:
        others = np.array([ranked(job.servers, each.sha256)[0] != job.here for each in shards.blobs], np.bool_)
        found |= others[np.array([blob for blob, _ in shards.where], np.int64)]
    return found


def merged(views: Sequence[View]) -> tuple[bytes, Float]:
    """Keys end to end, and when each is read next by whoever reads it first."""
    least: dict[tuple[str, str], tuple[Shards, Float]] = {}
    for each in views:
        name = each.shards.etag, each.shards.layout.name
        known = least.get(name)
        least[name] = (each.shards, each.due if known is None else np.minimum(known[1], each.due))
    raw = b"".join(shards.raw for shards, _ in least.values())
    due = np.concatenate([np.zeros(0), *(each for _, each in least.values())])
    if len(least) < 2:
        return raw, due
    # A block that several have stands in there once for each: the last one counts, and must be the soonest.
    order = np.argsort(-due, kind="stable")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 32)[order]
    return rows.tobytes(), due[order]
