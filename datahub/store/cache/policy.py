"""Which blocks of the cache can go, and in what order. Pure: somebody else unlinks.

Jobs read a dataset once an epoch in an order that changes with each. What was just read is then what is needed last,
so within a dataset that is in use the most recently read blocks go first, and a cache that holds half of it serves
half of every epoch (least recently used first would serve 15 %: the chance that a block read at u of one epoch and v
of the next has u (1 - v) >= 1/2). What a job announced as wanted stays, and so does what was read a moment ago, for
somebody may be in the middle of it. Datasets nobody reads any more go before all that, oldest first.

Where jobs announced their order it is known when each of their blocks is read next. Then what is read last goes first
(Belady 1966: no order of eviction has fewer misses), and what nobody announced goes before it. What jobs say is some
seconds old: what was read a moment ago stays before that, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

IDLE = 600.0
"""Seconds after which a dataset that nobody read is not in use."""
HOT = 10.0
"""Seconds during which a block that was read is likely to be read on."""

AHEAD = 60.0
"""Seconds by which a time may be ahead of the clock."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole block. ``tag`` says what it belongs to, ``used`` (seconds) when it was last read or filled."""

    key: str
    bytes: int
    tag: str
    used: float


def dispensable(
    entries: Iterable[Entry],
    wanted: Collection[str],
    now: float,
    *,
    held: Collection[str] = (),
    lru: bool = False,
    due: Mapping[str, float] | None = None,
) -> list[Entry]:
    """Every block that may go, the most dispensable first; never one that is wanted or whose tag is held.

    ``lru``: least recently used first, whatever it belongs to. ``due``: seconds until announced blocks are read,
    ``inf`` for those that no job will ask for.
    """
    free = [_settled(entry, now) for entry in entries if entry.key not in wanted and entry.tag not in held]
    if lru:
        return sorted(free, key=lambda entry: (entry.used, entry.key))
    latest: dict[str, float] = {}
    for entry in free:
        latest[entry.tag] = max(entry.used, latest.get(entry.tag, entry.used))
    coming = due or {}
    return sorted(free, key=lambda entry: _rank(entry, latest[entry.tag], now, coming.get(entry.key)))


def idle(entries: Iterable[Entry], now: float) -> list[Entry]:
    """The blocks of datasets that nobody reads any more."""
    found = [_settled(entry, now) for entry in entries]
    latest: dict[str, float] = {}
    for entry in found:
        latest[entry.tag] = max(entry.used, latest.get(entry.tag, entry.used))
    return [entry for entry in found if now - latest[entry.tag] > IDLE]


def _settled(entry: Entry, now: float) -> Entry:
    """A time that is still to come was told by a clock that was set back since: it says nothing."""
    return entry if entry.used <= now + AHEAD else replace(entry, used=0.0)


def _rank(entry: Entry, latest: float, now: float, due: float | None) -> tuple[int, float, str]:
    if due is not None and due < math.inf:
        return 4 if now - entry.used <= HOT else 3, -due, entry.key
    if due is not None or now - latest > IDLE:
        return 0, entry.used, entry.key
    if now - entry.used > HOT:
        return 1, -entry.used, entry.key
    return 2, entry.used, entry.key


def to_free(needed: int, total: int, limit: int) -> int:
    """Bytes to evict so that ``needed`` more fit: a little more than must be, so that not every fill has to ask."""
    missing = total + needed - limit
    return missing + limit // 64 if missing > 0 else 0
