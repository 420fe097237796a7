"""What a loader has done so far, counted where it happens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("read", "decode", "transform", "assemble")
"""What worker threads do, in order."""


class Counters:
    """Totals over the loader's life. Seconds of stages add up over threads; ``wait`` is the caller's."""

    def __init__(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._counts = dict.fromkeys(("batches", "samples", "bytes"), 0)
        self._seconds = dict.fromkeys((*STAGES, "wait"), 0.0)

    def after_fork(self) -> None:
        """A lock that some thread held while the process forked would stay held for ever."""
        if self._process != os.getpid():
            self._lock, self._process = threading.Lock(), os.getpid()

    def add(self, name: str, amount: int) -> None:
        with self._lock:
            self._counts[name] += amount

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self._seconds[stage] += spent

    def to_dict(self) -> dict[str, int | float]:
        """``batches``, ``samples``, ``bytes`` (encoded), and ``<stage>_seconds``."""
        with self._lock:
            return {**self._counts, **{f"{stage}_seconds": spent for stage, spent in self._seconds.items()}}
