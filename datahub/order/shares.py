"""Which member of a mixture stands where: runs of a fixed length in which every member has exactly its share.

A track is a sequence of positions cut into runs; a full run holds ``weights[d]`` entries of member d, in a keyed order
of its own. The last run of an epoch may be short: it is made of the first entries of the evenly spread run, so what a
track holds up to its end hangs on its length alone. Nothing is remembered from one position to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datahub.order.varied import keys, permute_each

Int = NDArray[np.int64]
Pattern = NDArray[np.int32]
"""``(2, run)``: the member at each place of a run, and how many entries of that member stand before it in the run."""

SHORT = 256
"""Runs up to this are made anew each time: remembering one costs more than making it among others."""
ROOM = 1 << 18
"""Entries of runs made at a time, and remembered: batches to come want some of them again."""


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
        self._runs = max(1, -(-length // shares.run))
        self._kept: dict[int, Pattern] = {}

    def entries(self, track: Int, position: Int) -> tuple[NDArray[np.int32], Int]:
        """(member, how many entries of that member its track holds before) of each position of a track."""
        run, place = position // self._shares.run, position % self._shares.run
        wanted, row = _distinct(track * self._runs + run)
        if int(self._weights.max()) == 1:
            member = self._members(wanted, place, row)
            return member, run
        found = np.empty((len(place), 2), np.int32)
        most = max(1, ROOM // self._shares.run)
        for start in range(0, len(wanted), most):
            here = ... if len(wanted) <= most else np.flatnonzero((row >= start) & (row < start + most))
            found[here] = self._sheet(wanted[start : start + most])[row[here] - start, :, place[here]]
        member = found[:, 0]
        return member, run * self._weights[member] + found[:, 1]

    def _members(self, wanted: Int, place: Int, row: Int) -> NDArray[np.int32]:
        """The member at each place of the runs ``wanted[row]``."""
        track, run = wanted // self._runs, wanted % self._runs
        length = np.minimum(self._shares.run, self._length - run * self._shares.run)
        return self._shares.spread[permute_each(place, length, keys((*self._key, "run"), track, run), row)]

    def _sheet(self, wanted: Int) -> NDArray[np.int32]:
        """The patterns of some runs, padded to equal lengths."""
        if self._shares.run <= SHORT:
            return self._made(wanted)
        kept = self._kept
        missing = np.array([each for each in wanted.tolist() if each not in kept], np.int64)
        if len(missing):
            kept = {**kept, **dict(zip(missing.tolist(), self._made(missing), strict=True))}
            most = max(len(wanted), ROOM // self._shares.run)
            self._kept = dict(list(kept.items())[-most:])
        return np.stack([kept[each] for each in wanted.tolist()])

    def _made(self, wanted: Int) -> NDArray[np.int32]:
        full = self._shares.run
        length = np.minimum(full, self._length - wanted % self._runs * full)
        sheet = np.zeros((len(wanted), 2, full), np.int32)
        for each in sorted(set(length.tolist())):  # the last run of a track may be short
            here = np.flatnonzero(length == each)
            place, row = np.tile(np.arange(each), len(here)), np.repeat(np.arange(len(here)), each)
            member = self._members(wanted[here], place, row).reshape(len(here), each)
            sheet[here, 0, :each], sheet[here, 1, :each] = member, self._numbered(member)
        return sheet

    def _numbered(self, member: NDArray[np.int32]) -> NDArray[np.int32]:
        """How often the member at each place of a run stands before it, in runs ``(n, length)`` of equal length."""
        length = member.shape[1]
        counts = np.bincount(self._shares.spread[:length])
        nth = np.arange(length, dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts)
        # Of so few distinct values numpy sorts narrow ones by counting.
        order = np.argsort(member.astype(np.min_scalar_type(len(counts))), axis=1, kind="stable")
        number = np.empty_like(member)
        np.put_along_axis(number, order, nth[None].astype(np.int32), axis=1)
        return number


def _distinct(labels: Int) -> tuple[Int, Int]:
    """The distinct labels, and for each label its place among them; quick where equal ones stand together."""
    first = np.ones(len(labels), np.bool_)
    np.not_equal(labels[1:], labels[:-1], out=first[1:])
    distinct, place = np.unique(labels[first], return_inverse=True)
    return distinct, place[np.cumsum(first) - 1]
