"""What a loader has done so far, counted where it happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("read", "decode", "transform", "assemble")
"""What worker threads do, in order."""


class Counters:
    """Totals over the loader's life. Seconds of stages add up over threads; ``wait`` is the caller's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("batches", "samples", "bytes"), 0)
        self._seconds = dict.fromkeys((*STAGES, "wait"), 0.0)

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
