"""The lanes of a loader's device, taken in turn: so many batches are on their way to it at once, and no more."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

import torch
from numpy.typing import NDArray

from datahub.core.errors import UsageError, WorkerDied
from datahub.tensor.device.lanes import Backend, Lane, kept

LANES = 3
"""One whose work the device does, one that decodes, one that is filled."""


class Ring:
    """Lanes are made when one is first needed, in the process that uses them. Safe in threads."""

    def __init__(self, backend: Backend, timeout: float, lanes: int = LANES) -> None:
        self.backend, self._timeout, self._count = backend, timeout, lanes
        self._lock = threading.Lock()
        self._free: SimpleQueue[Lane] | None = None
        self._process = 0

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane for this thread alone. The one that was given back first comes first, so that its work is done by now.

        Raises `WorkerDied` where none comes free in time. A thread that holds one must not ask for another.
        """
        free = self._opened()
        try:
            lane = free.get(timeout=self._timeout)
        except Empty:
            cause = f"the device took more than timeout={self._timeout:g} s for the batches before"
            raise WorkerDied("sending a batch to the device", cause) from None
        try:
            yield lane
        finally:
            free.put(lane)

    def keep(self, array: NDArray[Any]) -> torch.Tensor:
        """``array`` on the device for good, for every lane."""
        with self.lane() as lane:
            return kept(array, lane, self.backend.device)

    def close(self) -> None:
        """Wait for what is on its way; lanes in use come back first. The ring may be used again."""
        with self._lock:
            free, self._free = self._free, None
        if free is None or self._process != os.getpid():
            return
        for _ in range(self._count):
            try:
                free.get(timeout=self._timeout).drain()
            except Empty:
                return

    def _opened(self) -> SimpleQueue[Lane]:
        with self._lock:
            if self._free is None:
                free: SimpleQueue[Lane] = SimpleQueue()
                for _ in range(self._count):
                    free.put(self.backend.lane())
                self._free, self._process = free, os.getpid()
            if self._process != os.getpid():
                reason = "this loader's device belongs to the process that it was forked from"
                raise UsageError(reason, "make the loader in the process that uses it")
            return self._free
