"""A loader's statistics, for programs: `stats`, and who hears of them while a loop runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from datahub.loader.bottleneck import bottleneck
from datahub.loader.counters import Counters
from datahub.loader.holding import HeldOnDevice
from datahub.stream.held import HeldShards
from datahub.stream.source import LocalShards, MemoryShards, ShardSource

Stats = Mapping[str, Any]
COUNTS = ("batches", "samples", "quarantined", "refused", "bytes")


def stats(counters: Counters, source: ShardSource, workers: int, prefetch: int, ready: int) -> Stats:
    """Plain numbers and strings.

    Totals: ``batches``, ``samples`` (valid ones), ``quarantined``, ``bytes`` (encoded) that were made; images that a
    device's decoder ``refused``, so that the host decoded them; per stage ``read``, ``decode``, ``transform``,
    ``assemble`` the ``_seconds`` over all threads, of which ``_busy_seconds`` on a processor and ``_wait_seconds`` not;
    ``wait_seconds`` of the caller for batches, ``use_seconds`` between them.
    The queue: ``ready`` of at most ``prefetch`` batches stand finished; ``ready_mean`` did when one was asked for.
    Of the last ten seconds of looping: ``samples_per_second``, ``bytes_per_second``, and which of origin, disk,
    memory, decode, transform, assemble and consumer is the ``bottleneck``, ``because`` of what.
    """
    totals = counters.totals()
    recent = counters.recent(totals)
    found: dict[str, Any] = {name: int(totals[name]) for name in COUNTS}
    for name in [each for each in totals if each.endswith("_seconds")]:
        found[name] = totals[name]
        if name.endswith("_busy_seconds"):
            stage = name.removesuffix("_busy_seconds")
            found[f"{stage}_wait_seconds"] = max(0.0, totals[f"{stage}_seconds"] - totals[name])
    received = recent["received"]
    looped = recent["wait_seconds"] + recent["use_seconds"]
    found |= {
        "workers": workers,
        "prefetch": prefetch,
        "ready": ready,
        "ready_mean": recent["ready"] / received if received else 0.0,
        "samples_per_second": recent["samples"] / looped if looped else 0.0,
        "bytes_per_second": recent["bytes"] / looped if looped else 0.0,
    }
    judged = bottleneck(recent, workers=workers, source=kind_of(source))
    return {**found, "bottleneck": judged.name, "because": judged.because}


def kind_of(source: ShardSource) -> str:
    """Where reads go: ``disk``, ``origin``, or ``memory`` that holds everything."""
    if isinstance(source, HeldShards | HeldOnDevice):
        return "memory"
    return "disk" if isinstance(source, LocalShards | MemoryShards) else "origin"


class Listening:
    """Somebody to be told the statistics, at most once every so many seconds."""

    def __init__(self, call: Callable[[Stats], Any], every: float) -> None:
        self._call, self._every = call, every
        self._next = perf_counter() + every

    def __call__(self, stats: Callable[[], Stats]) -> None:
        now = perf_counter()
        if now >= self._next:
            self._next = now + self._every
            self._call(stats())
