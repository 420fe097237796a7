"""Which member of a mixture stands where: runs of a fixed length in which every member has exactly its share.

A track is a sequence of positions cut into runs; a full run holds ``weights[d]`` entries of member d, in a keyed order
of its own. The last run of an epoch may be short: it is made of the first entries of the evenly spread run, so what a
track holds up to its end hangs on its length alone. Nothing is remembered from one position to the next.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datahub.order.varied import keys, permute_each

Int = NDArray[np.int64]
Pattern = NDArray[np.int32]
"""``(2, run)``: the member at each place of a run, and how many entries of that member stand before it in the run."""

KEPT = 256
"""Patterns of runs remembered: a batch asks for one a lane, and the next one mostly for the same."""
AHEAD = 4096
"""Entries worth making at once: fewer cost as much."""


@dataclass(frozen=True)
class Shares:
    """``weights``: positive whole numbers, entries of each member in a run; their sum is the run's length."""

    weights: tuple[int, ...]

    @cached_property
    def run(self) -> int:
        return sum(self.weights)

    @cached_property
    def spread(self) -> NDArray[np.int32]:
        """The member at each place of a run in which all are spread evenly: entry k of w stands near (k + 1/2) / w."""
        weights = np.array(self.weights)
        member = np.repeat(np.arange(len(weights), dtype=np.int32), weights)
        nth = np.arange(self.run) - np.repeat(np.cumsum(weights) - weights, weights)
        # Times 2: whole numbers divided, so that equal places compare equal on every machine.
        return member[np.lexsort((member, (2 * nth + 1) / weights[member]))]

    def held(self, length: int) -> Int:
        """How many entries of each member a track of ``length`` positions holds."""
        runs, rest = divmod(length, self.run)
        return runs * np.array(self.weights) + np.bincount(self.spread[:rest], minlength=len(self.weights))

    def longest(self, sizes: Int) -> int:
        """The least length of a track that holds at least ``sizes[d]`` entries of each member d."""
        return max(self._place(member, int(size) - 1) + 1 for member, size in enumerate(sizes))

    def shortest(self, sizes: Int) -> int:
        """The greatest length of a track that holds at most ``sizes[d]`` entries of each member d."""
        return min(self._place(member, int(size)) for member, size in enumerate(sizes))

    def _place(self, member: int, number: int) -> int:
        """Where entry ``number`` of a member stands on a track of evenly spread runs."""
        runs, rest = divmod(number, self.weights[member])
        first = int(np.searchsorted(self._grouped[1], member))
        return runs * self.run + int(self._grouped[0][first + rest])

    @cached_property
    def _grouped(self) -> tuple[Int, NDArray[np.int32]]:
        """The places of a spread run by member, and those members."""
        places = np.argsort(self.spread, kind="stable")
        return places, self.spread[places]


class Tracks:
    """Tracks of ``length`` positions each, in the order that ``key`` decides. Safe in threads."""

    def __init__(self, shares: Shares, length: int, *key: int | str) -> None:
        self._shares, self._length, self._key = shares, length, key
        self._weights = np.array(shares.weights)
        self._patterns: dict[tuple[int, int], Pattern] = {}
        self._lock = threading.Lock()

    def entries(self, track: Int, position: Int) -> tuple[NDArray[np.int32], Int]:
        """(member, how many entries of that member its track holds before) of each position of a track."""
        if not len(position):
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        run, place = position // self._shares.run, position % self._shares.run
        runs = -(-self._length // self._shares.run)
        wanted, row = np.unique(track * runs + run, return_inverse=True)
        found = self._sheet([divmod(each, runs) for each in wanted.tolist()])[row, :, place]
        member = found[:, 0]
        return member, run * self._weights[member] + found[:, 1]

    def _sheet(self, wanted: list[tuple[int, int]]) -> NDArray[np.int32]:
        """The patterns of some (track, run), padded to equal lengths."""
        patterns = self._patterns
        found = {each: patterns[each] for each in wanted if each in patterns}
        missing = [each for each in wanted if each not in found]
        if missing:
            made = self._made(self._ahead(missing))
            found |= {each: made[each] for each in missing}
            with self._lock:
                kept = {**self._patterns, **made}
                most = max(KEPT, 2 * len(wanted))
                self._patterns = dict(list(kept.items())[-most:])
        return np.stack([found[each] for each in wanted])

    def _ahead(self, missing: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Short runs are made several at a time: the runs that follow on the same tracks come soon."""
        count = max(1, AHEAD // (self._shares.run * len(missing)))
        last = -(-self._length // self._shares.run)
        return list({(track, each): None for track, run in missing for each in range(run, min(run + count, last))})

    def _made(self, wanted: list[tuple[int, int]]) -> dict[tuple[int, int], Pattern]:
        full = self._shares.run
        track, run = np.array(wanted).T
        length = np.minimum(full, self._length - run * full)
        row = np.repeat(np.arange(len(wanted)), length)
        place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        key = keys((*self._key, "run"), track, run)
        member = self._shares.spread[permute_each(place, length[row], key[row])]
        sheet = np.zeros((len(wanted), 2, full), np.int32)
        sheet[row, 0, place] = member
        sheet[row, 1, place] = _numbered(row * len(self._weights) + member)
        return dict(zip(wanted, sheet, strict=True))


def _numbered(labels: Int) -> Int:
    """How often the label of each place stands before it."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    number = np.empty_like(labels)
    number[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return number
