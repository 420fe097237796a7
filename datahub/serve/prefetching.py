"""Keeping what jobs will read soonest, and bringing it before they ask, in the background of one process.

Every few seconds: the jobs that live, the next reads of every block (`outlook`), written down for whoever evicts; the
blocks of each job's next bytes wanted, so that nothing evicts them; those of them that are missing brought, a job after
the other in turn, while no reader waits for an origin. A job that does not ask for what was brought for it (it lies,
or reads from elsewhere) gets nothing more than a trial now and then.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datahub.core.errors import DatahubError
from datahub.core.refs import Ref
from datahub.serve import duty
from datahub.serve.engine import Engine
from datahub.serve.filters import Filters
from datahub.serve.foresight import foreseeable, layout
from datahub.serve.jobs import Jobs
from datahub.serve.library import Variant
from datahub.serve.metrics import Metrics
from datahub.serve.outlook import Paces, Shards, View, Worked, merged, view
from datahub.serve.threads import Daemons
from datahub.store.cache.blockcache import BlockCache
from datahub.store.cache.holdings import Holdings
from datahub.wire.messages import Job

Look = Callable[[Ref], Awaitable[Variant | None]]

EVERY, RARELY = 2.0, 10.0
"""Seconds between two rounds; more, up to the second, where a round costs more than a `SHARE` of them."""
SHARE = 0.1
DEPTH = 8 << 30
"""Bytes ahead of each job that are wanted and brought, at most; of all jobs together at most half of the cache."""
AT_ONCE, BESIDE = 4, 1
"""Blocks brought at a time while no reader waits, and while one does."""
PAUSE = 0.1
"""Seconds until it is looked again whether readers wait."""
TRUST, TRIAL = 32, 30.0
"""Blocks brought for a job before it asks for any; seconds between two trials for one that does not."""
LATE = 10.0
"""Seconds after a block was due until it is known that nobody asked for it: the books are that far behind."""
JUDGED = 0.1
"""What one block counts in a job's score."""
LAYOUTS = 16
MOST, FILTERS, WORK = 64, 2, 5.0
"""Jobs that are foreseen at a time; filters that are worked out in a round; seconds of one after which no order is
worked out that was not before."""


@dataclass
class Credit:
    """What became of the blocks that were brought for a job. ``score``: the share of late ones that it asked for."""

    brought: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Key -> when it was brought, and the progress at which it was to be read."""
    useful: int = 0
    score: float = 1.0
    tried: float = 0.0

    def allows(self, now: float) -> int:
        """How many more may be brought now."""
        if self.score < 0.5:
            return 1 if now - self.tried > TRIAL else 0
        return max(0, TRUST + 2 * self.useful - len(self.brought))

    def settle(self, used: dict[str, float], progress: int, now: float) -> None:
        """``used``: when each brought block that is still here was used last."""
        for key, (when, until) in list(self.brought.items()):
            if key not in used:
                del self.brought[key]  # evicted: nobody knows
            elif used[key] > when:
                del self.brought[key]
                self.useful += 1
                self.score += JUDGED * (1.0 - self.score)
            elif until < progress and now - when > LATE:
                del self.brought[key]
                self.score *= 1.0 - JUDGED


class Prefetcher:
    """Belongs to one event loop; the work is done by whichever process of a server holds the lock."""

    def __init__(self, folder: Path, jobs: Jobs, cache: BlockCache, engine: Engine, metrics: Metrics) -> None:
        self._folder, self._jobs, self._cache, self._engine, self._metrics = folder, jobs, cache, engine, metrics
        self._worked, self._paces = Worked(), Paces()
        self._filters, self._may_filter = Filters(engine), 0
        self._thinker, self._ended = Daemons(1, "datahub-foresee"), False
        """The end of a server does not wait for what is worked out."""
        self._layouts: dict[tuple[str, str], Shards] = {}
        self._credits: dict[str, Credit] = {}
        self._wanted: set[str] = set()
        self._running: set[asyncio.Task[bool]] = set()
        self._lock: int | None = None
        self._written = False

    async def run(self, look: Look) -> None:
        """Until cancelled. ``look`` finds a variant."""
        try:
            while True:
                began = time.monotonic()
                if await asyncio.to_thread(self._mine):
                    with suppress(DatahubError, sqlite3.Error, OSError):  # the disk: readers find out too
                        await self._round(look, began)
                        continue
                await asyncio.sleep(EVERY)
        finally:
            self._ended = True
            self._thinker.shutdown(wait=False, cancel_futures=True)
            for task in self._running:
                task.cancel()
            if self._lock is not None:
                os.close(self._lock)

    async def _round(self, look: Look, began: float) -> None:
        jobs = sorted(await asyncio.to_thread(self._jobs.alive), key=self._proven, reverse=True)
        self._may_filter = FILTERS
        found = [(job, shards) for job in jobs if (shards := await self._shards(job, look)) is not None]
        queues = await asyncio.get_running_loop().run_in_executor(self._thinker, self._foresee, found)
        ended = time.monotonic()
        await self._bring(queues, ended + max(EVERY, min(RARELY, (ended - began) / SHARE)))

    # -- what jobs read -------------------------------------------------------------------------------------------

    async def _shards(self, job: Job, look: Look) -> Shards | None:
        """Where the samples of a job lie; None where nothing can or need be foreseen."""
        try:
            variant = await look(Ref.parse(job.dataset)) if job.order is not None else None
            if variant is None or variant.folder is not None or job.order is None:
                return None
            if not foreseeable(variant.record.splits[job.split], job.order):
                return None
            key = (variant.etag, job.split)
            if key not in self._layouts:
                self._layouts[key] = await self._laid_out(variant, job.split)
            found = self._layouts[key] = self._layouts.pop(key)
            while len(self._layouts) > LAYOUTS:
                del self._layouts[next(iter(self._layouts))]
            if job.order.where:
                return await self._filtered(found, variant, job.split, job.order.where)
        except (DatahubError, OSError, KeyError):
            return None
        return found

    async def _filtered(self, shards: Shards, variant: Variant, split: str, where: str) -> Shards | None:
        if not self._filters.knows(variant, split, where):
            if not self._may_filter:
                return None  # in a round to come
            self._may_filter -= 1
        met = await self._filters.rows(variant, split, where)
        return None if met is None else replace(shards, layout=replace(shards.layout, meets=met))

    async def _laid_out(self, variant: Variant, split: str) -> Shards:
        entry = variant.record.splits[split]
        blobs = [variant.blobs[each.path] for each in entry.shards]
        table = variant.blobs[entry.locate]
        located = await self._engine.read(table, 0, table.size)

        def make() -> Shards:
            return Shards.of(variant.etag, blobs, layout(split, entry, [each.size for each in blobs], located))

        return await asyncio.to_thread(make)

    # -- what is kept ---------------------------------------------------------------------------------------------

    def _foresee(self, found: list[tuple[Job, Shards]]) -> dict[str, deque[tuple[View, int]]]:
        """In a thread: keep what is read soonest; the blocks of each job that are missing, the first one first."""
        now = time.monotonic()
        found = found[:MOST]
        views = self._views(found, self._depth(len(found)), now)
        if self._ended:
            return {}
        names = {each.job.job for each in views}
        self._paces.keep([job.job for job, _ in found])
        self._credits = {name: self._credits.get(name, Credit()) for name in names}
        self._keep(views)
        self._settle(views)
        return {each.job.job: self._missing(each, now) for each in views}

    def _proven(self, job: Job) -> int:
        """Whoever announces thousands of jobs takes nothing from those that ask for what was brought."""
        credit = self._credits.get(job.job)
        return 0 if credit is None else credit.useful

    def _views(self, found: list[tuple[Job, Shards]], depth: int, now: float) -> list[View]:
        views = []
        for job, shards in found:
            if self._ended:
                break
            if time.monotonic() - now > WORK and not self._worked.knows(shards, job):
                continue  # in a round to come
            # What a job says may be no order at all: it costs only its own.
            with suppress(DatahubError, ValueError, OverflowError, MemoryError):
                each = view(job, shards, self._worked, partial(self._paces.of, job.job, now), depth)
                views += [] if each is None else [each]
        return views

    def _depth(self, jobs: int) -> int:
        """Bytes ahead of each job, of what pins and leases leave."""
        if not jobs or self._cache.limit is None:
            return DEPTH
        held = {each.tag: each.bytes for each in Holdings(self._cache).all()}
        return min(DEPTH, max(0, self._cache.limit - sum(held.values())) // 2 // jobs)

    def _keep(self, views: list[View]) -> None:
        if views:
            self._cache.foreseen.write(*merged(views))
            self._written = True
        elif self._written:
            self._cache.foreseen.forget()
            self._written = False
        wanted = {each.shards.key(block) for each in views for block in each.ahead.tolist()}
        if gone := self._wanted - wanted:
            self._cache.unwant(gone)
        if new := wanted - self._wanted:
            self._cache.want(new)
        self._wanted = wanted

    def _settle(self, views: list[View]) -> None:
        for each in views:
            credit = self._credits[each.job.job]
            if credit.brought:
                credit.settle(self._cache.used_at(credit.brought), each.progress, time.time())

    def _missing(self, view: View, now: float) -> deque[tuple[View, int]]:
        blocks = view.ahead.tolist()
        here = self._cache.present(view.shards.key(block) for block in blocks)
        missing = [(view, block) for block, there in zip(blocks, here, strict=True) if not there]
        return deque(missing[: self._credits[view.job.job].allows(now)])

    # -- bringing -------------------------------------------------------------------------------------------------

    async def _bring(self, queues: dict[str, deque[tuple[View, int]]], until: float) -> None:
        """Bring what is missing, one block of each job in turn, until the next round."""
        turn = deque(name for name, queue in queues.items() if queue)
        while (left := until - time.monotonic()) > 0:
            most = BESIDE if self._engine.waiting else AT_ONCE
            while turn and len(self._running) < most:
                self._start(*queues[turn[0]].popleft())
                turn.rotate(-1)
                if not queues[turn[-1]]:
                    turn.pop()
            if not self._running:
                await asyncio.sleep(left)
                continue
            done, self._running = await asyncio.wait(
                self._running, timeout=min(left, PAUSE), return_when=asyncio.FIRST_COMPLETED
            )
            if any(task.cancelled() or task.exception() or not task.result() for task in done):
                turn.clear()  # an origin fails, or there is no room: readers first

    def _start(self, view: View, block: int) -> None:
        blob, number = view.shards.where[block]
        self._running.add(asyncio.create_task(self._one(view, block, blob, number)))

    async def _one(self, view: View, block: int, blob: int, number: int) -> bool:
        """Whether there was room."""
        source, credit = view.shards.blobs[blob], self._credits.get(view.job.job, Credit())
        now = time.monotonic()
        credit.tried = now
        if not await self._engine.prefetch(source, number):
            return False
        credit.brought[view.shards.key(block)] = (time.time(), float(view.until[block]))
        self._metrics.prefetched(view.job.job, source.block(number).size)
        return True

    def _mine(self) -> bool:
        """Whether this process is the one that works; the lock goes with it."""
        if self._lock is None:
            self._lock = duty.taken(self._folder, "foresight")
        return self._lock is not None
