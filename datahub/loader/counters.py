"""What a loader has done so far, counted where it happens; the last seconds of it kept apart."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping
from time import perf_counter, thread_time
from types import TracebackType
from typing import NamedTuple

STAGES = ("read", "decode", "transform", "assemble")
"""What worker threads do, in order."""
WINDOW = 10.0
"""Seconds of looping that rates and the bottleneck are told of."""
EVERY = 0.5
"""Seconds between the snapshots that the window is made of."""
SAMPLE = 0.01
"""Seconds between two looks at a stage's processor time: asking the kernel for it costs more than all else here."""

Totals = dict[str, float]


class Spent(NamedTuple):
    """Counts, and of each stage its seconds, those of a sample of them, and those the sample was on a processor."""

    counts: dict[str, int]
    stages: dict[str, tuple[float, float, float]]


class Counters:
    """Totals over the loader's life. Safe in threads and after fork; a pickled one arrives empty.

    ``<stage>_seconds`` add up over threads, ``<stage>_busy_seconds`` are (by samples) those on a processor: the rest is
    waiting for a disk, a network, the interpreter's lock or a processor. ``wait_seconds`` the caller waited for
    batches, ``use_seconds`` it did something else between two batches of a loop.
    """

    def __init__(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._stages = {name: Stage() for name in STAGES}
        self._counts = dict.fromkeys(("batches", "samples", "quarantined", "refused", "bytes"), 0)
        self._received = self._ready = 0
        self._wait = self._use = 0.0
        self._since: float | None = None
        """When the caller last asked for a batch or got one; None outside of loops."""
        self._snapshots: deque[tuple[float, Totals]] = deque()

    def after_fork(self) -> None:
        """A lock that some thread held while the process forked would stay held for ever."""
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.Lock()
            for stage in self._stages.values():
                stage.lock = threading.Lock()

    def add(self, name: str, amount: int) -> None:
        with self._lock:
            self._counts[name] += amount

    def spent(self) -> Spent:
        """What was counted since this was last asked, for another process's `merge`."""
        with self._lock:
            counts = dict(self._counts)
            self._counts = dict.fromkeys(counts, 0)
        stages = {}
        for name, stage in self._stages.items():
            with stage.lock:
                stages[name] = (stage.seconds, stage.sampled, stage.ran)
                stage.seconds = stage.sampled = stage.ran = 0.0
        return Spent(counts, stages)

    def merge(self, spent: Spent) -> None:
        """Count what another process has `spent`."""
        with self._lock:
            for name, amount in spent.counts.items():
                self._counts[name] += amount
        for name, (seconds, sampled, ran) in spent.stages.items():
            stage = self._stages[name]
            with stage.lock:
                stage.seconds += seconds
                stage.sampled += sampled
                stage.ran += ran

    def timing(self, stage: str) -> Timing:
        """A context that counts the time inside it, of this thread, to ``stage``."""
        return Timing(self._stages[stage])

    def asked(self, ready: int) -> None:
        """The caller wants the next batch; ``ready`` batches stand finished."""
        now = perf_counter()
        if not self._snapshots:
            self._snapshots.append((now, self.totals()))
        self._ready += ready
        if self._since is not None:
            self._use += now - self._since
        self._since = now

    def received(self) -> None:
        """The caller has it."""
        now = perf_counter()
        self._received += 1
        if self._since is not None:
            self._wait += now - self._since
        self._since = now
        if now - self._snapshots[-1][0] >= EVERY:
            self._snapshots.append((now, self.totals()))
            while now - self._snapshots[1][0] >= WINDOW:
                self._snapshots.popleft()

    def left(self) -> None:
        """The loop is over: what the caller does from here on is no use of batches."""
        self._since = None

    def totals(self) -> Totals:
        """Everything so far, the caller's present use of a batch included."""
        since = self._since
        using = perf_counter() - since if since is not None else 0.0
        with self._lock:
            found: Totals = dict(self._counts)
        found |= {"received": self._received, "ready": self._ready}
        found |= {"wait_seconds": self._wait, "use_seconds": self._use + using}
        for name, stage in self._stages.items():
            found[f"{name}_seconds"], found[f"{name}_busy_seconds"] = stage.seconds, stage.busy
        return found

    def recent(self, totals: Mapping[str, float]) -> Totals:
        """What of ``totals`` the window holds."""
        before = self._snapshots[0][1] if self._snapshots else dict.fromkeys(totals, 0)
        return {name: amount - before[name] for name, amount in totals.items()}

    def __reduce__(self) -> tuple[type[Counters], tuple[()]]:
        return Counters, ()


class Stage:
    """Seconds of one stage over all threads; of a sample of them, how much was on a processor."""

    __slots__ = ("due", "lock", "ran", "sampled", "seconds")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seconds = self.sampled = self.ran = self.due = 0.0

    @property
    def busy(self) -> float:
        return self.seconds * min(1.0, self.ran / self.sampled) if self.sampled else 0.0


class Timing:
    """Wall (and now and then processor) time of this thread between entering and leaving."""

    __slots__ = ("_began", "_ran", "_stage")

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._began, self._ran = 0.0, -1.0

    def __enter__(self) -> None:
        began = self._began = perf_counter()
        self._ran = thread_time() if began >= self._stage.due else -1.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stage, ran, now = self._stage, self._ran, perf_counter()
        with stage.lock:
            stage.seconds += now - self._began
            if ran >= 0:
                stage.sampled += now - self._began
                stage.ran += thread_time() - ran
                stage.due = now + SAMPLE
