"""What people decide about a cache's datasets: pins and leases, which nothing evicts, and evicting by hand.

A lease is answered before a byte is fetched: it is granted where everything held fits into the cache together. One
that has ended, and a job's that was not renewed, holds nothing any more. All of it is on the cache's books, so it is
the same for every process and after a restart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from datahub.core.processes import boot
from datahub.store.cache import books
from datahub.store.cache.blockcache import BlockCache
from datahub.store.cache.ledger import Hold, Ledger
from datahub.store.cache.policy import Entry, dispensable


@dataclass(frozen=True, slots=True)
class Verdict:
    """``room``: bytes that could be held for this dataset beside what is held already, of ``limit`` in all."""

    granted: bool
    bytes: int
    room: int
    limit: int
    held: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Evicted:
    """Bytes that went, and bytes that stayed because they are wanted or being read."""

    freed: int
    kept: int


class Holdings:
    """Raises ``sqlite3.Error`` or ``OSError`` where the cache's books cannot be written."""

    def __init__(self, cache: BlockCache) -> None:
        self._cache = cache

    def hold(self, tag: str, name: str, size: int, seconds: float | None = None) -> Verdict:
        """Keep the ``size`` bytes of ``tag`` for ``name`` ("" pins them), for so long (None: for ever), if they fit."""
        now = time.time()
        with self._cache.books() as (ledger, _, limit):
            found = ledger.holds(now)
            others = {each.tag: each.bytes for each in found if each.tag != tag}
            room = max(0, limit - sum(others.values()))
            if granted := size <= room:
                ledger.hold(_hold(tag, name, size, seconds, now))
            return Verdict(granted, size, room, limit, tuple(ledger.holds(now)))

    def end(self, name: str, tag: str | None = None) -> int:
        """End what ``name`` holds, of one tag or all; how many there were."""
        with self._cache.books() as (ledger, _, _limit):
            found = [each for each in ledger.holds(time.time()) if each.name == name and tag in (None, each.tag)]
            for each in found:
                ledger.unhold(each.tag, name)
        return len(found)

    def renew(self, name: str, seconds: float) -> int:
        """Move the end of all that a job holds to so many seconds from now, or leave it where it is later; how many
        there are."""
        now = time.time()
        with self._cache.books() as (ledger, _, _limit):
            found = [each for each in ledger.holds(now) if each.name == name and each.until is not None]
            for each in found:
                if (each.left(now, boot()) or 0.0) < seconds:
                    ledger.hold(_hold(each.tag, name, each.bytes, seconds, now))
        return len(found)

    def all(self) -> list[Hold]:
        with self._cache.books() as (ledger, _, _limit):
            return ledger.holds(time.time())

    def sizes(self) -> dict[str, int]:
        """Tag -> bytes of it that are here."""
        with self._cache.books() as (ledger, _, _limit):
            return ledger.sizes()

    def evict(self, tag: str) -> Evicted | None:
        """Let go of a dataset's blocks; None where it is held."""
        now = time.time()
        with self._cache.books() as (ledger, files, _):
            if tag in ledger.held(now):
                return None
            mine = [each for each in ledger.entries() if each.tag == tag]
            total = sum(each.bytes for each in mine)
            freed = books.remove(ledger, files, dispensable(mine, ledger.wanted(now), now), total)
        return Evicted(freed, total - freed)

    def trim(self, most: int) -> int:
        """Evict, by the cache's policy, until it holds ``most`` bytes; the bytes that went."""
        with self._cache.books() as (ledger, files, _):
            goal = ledger.total() - most
            return books.remove(ledger, files, self._free(ledger), goal) if goal > 0 else 0

    def _free(self, ledger: Ledger) -> list[Entry]:
        now = time.time()
        held, due = ledger.held(now), self._cache.foreseen.due()
        return dispensable(ledger.entries(), ledger.wanted(now), now, held=held, lru=self._cache.lru, due=due)


def _hold(tag: str, name: str, size: int, seconds: float | None, now: float) -> Hold:
    if seconds is None:
        return Hold(tag, name, size, boot=boot())
    return Hold(tag, name, size, now + seconds, time.monotonic() + seconds, boot())
