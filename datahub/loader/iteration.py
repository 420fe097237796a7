"""One pass over (the rest of) an epoch: a bounded number of batches in the making, handed out in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from datahub.core.errors import UsageError, WorkerDied
from datahub.loader.assemble import Assembler
from datahub.loader.jobs import Job
from datahub.loader.pool import Pool
from datahub.loader.process.staff import Errand, Team
from datahub.loader.readahead import ReadAhead
from datahub.loader.schedule import Schedule, Step

IDLE_PATIENCE = 1.0
"""Seconds allowed to threads that have nothing left to do."""


class Iteration(Iterator[tuple[Any, int]]):
    """Yields (batch, position after it). Threads exist while it does, and it belongs to the process that made it.

    At most ``prefetch`` batches are in the making or ready beyond the one handed out. An error surfaces at the batch it
    belongs to and ends the iteration. With ``workers=0`` every batch is made when asked for, in the caller's thread.
    """

    def __init__(
        self,
        schedule: Schedule,
        assembler: Assembler,
        epoch: int,
        position: int,
        *,
        workers: int,
        prefetch: int,
        timeout: float,
        between: int = 0,
        team: Team | None = None,
    ) -> None:
        """``between``: samples of the batches that others make between two of this iteration's.

        ``team``: processes that make the batches, each a whole one; then as many as there are may be in the making.
        """
        self._schedule, self._assembler, self._epoch, self._next = schedule, assembler, epoch, position
        self._between = between
        self._workers, self._prefetch, self._timeout = workers, max(1, prefetch), timeout
        self._team = team
        if team is not None:
            self._prefetch = max(self._prefetch, team.workers)
        self._jobs: deque[tuple[Job | Errand, int]] = deque()
        self._pool: Pool | None = None
        self._process = os.getpid()
        announce = assembler.announce if team is None else _announced_by_the_workers
        self._ahead = ReadAhead(schedule, announce, epoch, between=between)
        self._ended: str | None = None
        self.running = True
        """False once it is exhausted, closed or retired."""

    def __next__(self) -> tuple[Any, int]:
        if self._ended:
            raise UsageError(self._ended, "start a new loop")
        if not self.running:
            raise StopIteration
        if os.getpid() != self._process:
            raise UsageError(
                "this loop began in another process", "start a new loop in this one: `for` over the loader"
            )
        try:
            found = self._inline() if self._workers == 0 else self._threaded()
        except BaseException:
            self.close()
            raise
        if found is None:
            self.close(patience=IDLE_PATIENCE)
            raise StopIteration
        return found

    @property
    def ready(self) -> int:
        """Batches that stand finished, in the order they will be handed out."""
        return sum(job.future.done() for job, _ in self._jobs)

    @property
    def asked(self) -> int:
        """Where in the epoch what was asked for, or is in the making, ends."""
        return max(self._next, self._ahead.told)

    def seek(self, position: int) -> None:
        """Go on at ``position`` of the same epoch; what was made ahead is dropped."""
        self._drop()
        self._ahead.seek()
        self._next = position

    def retire(self, reason: str, patience: float = 0.0) -> None:
        """End it from outside: the next batch asked for is a `UsageError`."""
        self.close(patience)
        self._ended = reason

    def close(self, patience: float = 0.0) -> None:
        """Drop what is in the making and let the threads go, waiting at most ``patience`` seconds for them."""
        self.running = False
        self._drop()
        self._ahead.end()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(patience)

    def _drop(self) -> None:
        for job, _ in self._jobs:
            job.drop()
        self._jobs.clear()
        if self._team is not None:
            self._team.pass_over()

    def _inline(self) -> tuple[Any, int] | None:
        after = self._schedule.after(self._next)
        if after is None:
            return None
        self._ahead.go(self._next)
        batch = self._assembler.make(self._schedule.step(self._epoch, self._next, self._between))
        self._next = after + self._between
        return batch, after

    def _threaded(self) -> tuple[Any, int] | None:
        self._fill(self._prefetch)
        if not self._jobs:
            return None
        job, after = self._jobs[0]
        try:
            batch = self._assembler.received(job.future.result(self._timeout))
        except TimeoutError as error:
            if job.future.done():
                raise  # the error of a worker, not of the wait
            raise WorkerDied("making a batch", f"none came within timeout={self._timeout:g} s") from error
        self._jobs.popleft()
        self._fill(self._prefetch)  # the next ones are made while the caller uses this one
        return batch, after

    def _fill(self, count: int) -> None:
        self._ahead.go(self._next)
        while len(self._jobs) < count and (after := self._schedule.after(self._next)) is not None:
            self._jobs.append((self._begun(), after))
            self._next = after + self._between

    def _begun(self) -> Job | Errand:
        """The batch at the next position, in the making."""
        if self._team is not None:
            batch = self._schedule.plan.batch
            return self._team.ask(self._epoch, self._next, batch, batch + self._between)
        plan: Callable[[], Any] = partial(self._schedule.step, self._epoch, self._next, self._between)
        job = Job(self._assembler, plan, self._workers)
        if self._pool is None:
            self._pool = Pool(self._workers, "datahub-loader")
        job.submit(self._pool)
        return job


def _announced_by_the_workers(step: Step | None) -> bool:  # noqa: ARG001
    """Each of them tells its own source what it is going to read."""
    return False
