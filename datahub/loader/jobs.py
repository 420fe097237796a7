"""A batch in the making: planned, read and decoded in pieces by worker threads, put together by the last of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from datahub.loader.assemble import Assembler
from datahub.loader.pool import Pool
from datahub.loader.schedule import Step
from datahub.loader.work import Work


class Job:
    """``future`` holds the batch, or the error that belongs to it. No thread waits for another."""

    def __init__(self, assembler: Assembler, plan: Callable[[], Step], workers: int) -> None:
        self.future: Future[Any] = Future()
        self._assembler, self._plan, self._workers = assembler, plan, workers
        self._lock = threading.Lock()
        self._left = 0
        self._dropped = False

    def submit(self, pool: Pool) -> None:
        pool.submit(partial(self._guarded, partial(self._begin, pool)))

    def drop(self) -> None:
        """Nobody wants the batch any more: what has not begun will not."""
        self._dropped = True

    def _begin(self, pool: Pool) -> None:
        work = self._assembler.begin(self._plan())
        pieces = work.pieces(self._workers)
        self._left = len(pieces)
        for piece in pieces[1:]:
            pool.submit(partial(self._guarded, partial(self._piece, work, piece)))
        self._piece(work, pieces[0])

    def _piece(self, work: Work, rows: slice) -> None:
        self._assembler.piece(work, rows)
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self.future.set_result(self._assembler.finish(work))

    def _guarded(self, part: Callable[[], None]) -> None:
        if self._dropped or self.future.done():
            return
        try:
            part()
        except BaseException as error:  # noqa: BLE001 - it is raised where the batch is waited for
            with self._lock:
                if not self.future.done():
                    self.future.set_exception(error)
