"""Which part of a loader sets its pace: a pure judgement of measured seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from datahub.loader.counters import STAGES

PATIENT = 0.1
"""Share of a loop's time spent waiting below which the consumer is what others wait for."""


class Bottleneck(NamedTuple):
    """``name``: origin, disk, memory, decode, transform, assemble or consumer; "" before anything was measured."""

    name: str
    because: str

    def __str__(self) -> str:
        return f"bottleneck: {self.name}: {self.because}" if self.name else f"bottleneck: {self.because}"


def bottleneck(spent: Mapping[str, float], *, workers: int, source: str) -> Bottleneck:
    """Judge what `Counters` counted; ``source`` is where reads go: ``disk``, ``origin`` or ``memory``.

    A loop that hardly waits has a slow consumer. Otherwise it is the stage that took the most of the threads' time.
    Without threads the caller does every stage itself, and its waiting is their work.
    """
    wait, use = spent["wait_seconds"], spent["use_seconds"]
    stages = {stage: spent[f"{stage}_seconds"] for stage in STAGES}
    made = sum(stages.values())
    if not spent["received"] or not wait + use:
        return Bottleneck("", "no batch was asked for yet")
    share = wait / (wait + use)
    waited = f"the loop waited {share:.0%} of its time"
    if (share < PATIENT) if workers else (share < 0.5):
        ready = spent["ready"] / spent["received"]
        return Bottleneck("consumer", f"{waited}, {ready:.1f} batches stood ready when it asked for one")
    if not made:
        return Bottleneck("", f"{waited}, and no stage was measured")
    slowest = max(stages, key=lambda stage: stages[stage])
    on = spent[f"{slowest}_busy_seconds"] / stages[slowest]
    threads = f"{workers} thread{'s' if workers != 1 else ''}" if workers else "the caller's thread"
    name = source if slowest == "read" else slowest
    part = f"{slowest} took {stages[slowest] / made:.0%} of the work of {threads} ({min(on, 1.0):.0%} on a processor)"
    return Bottleneck(name, f"{waited}; {part}")
