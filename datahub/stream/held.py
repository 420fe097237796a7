"""Samples' bytes held in memory whole: where each lies there, and the `ShardSource` that answers from it.

What is held is a stretch of memory in which the spans stand in the order of the shards, each at a multiple of `UNIT`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from datahub.core.errors import ShardCut
from datahub.stream.memory import Memory
from datahub.stream.source import ShardSource
from datahub.stream.spans import Data, Spans

UNIT = 128
"""Bytes: what a device gathers at a time. Half of it is lost a sample."""
PIECE = 4 << 20
"""About as many bytes are read, and written to where they are held, at a time."""
READERS = 8
"""Threads that read at least: they wait for a disk or a network more than they work."""
_OFFSET = 44
"""Bits of a span's number that say where in its shard it begins."""

Int = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Told = Callable[[int], None]
Room = Callable[[int, int], AbstractContextManager[Bytes]]
"""Memory for bytes ``[begin, end)``, to be written inside of the context, by any thread."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where spans lie in memory: int64 arrays ``(n,)``, ascending by ``number``, which names a span."""

    number: Int
    start: Int
    size: Int
    end: int
    """Bytes of the whole."""

    @staticmethod
    def of(spans: Spans) -> Layout:
        """One after the other, in the order of the shards; a span that is given twice is held once."""
        number, first = np.unique(_numbers(spans), return_index=True)
        return Layout.placed(number, spans.size[first].astype(np.int64))

    @staticmethod
    def placed(number: Int, size: Int) -> Layout:
        ends = np.cumsum(-(-size // UNIT) * UNIT)
        start = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(number)]
        return Layout(number, start, size, int(ends[-1]) if len(ends) else 0)

    def __len__(self) -> int:
        return len(self.number)

    def find(self, spans: Spans) -> Int:
        """The place of each span; -1 where it is not held."""
        wanted = _numbers(spans)
        if not len(self):
            return np.full(len(wanted), -1, np.int64)
        place = np.minimum(np.searchsorted(self.number, wanted), len(self) - 1)
        there = (self.number[place] == wanted) & (self.size[place] == spans.size)
        return np.where(there, place, -1)

    def spans(self, places: slice) -> Spans:
        number = self.number[places]
        return Spans(number >> _OFFSET, number & ((1 << _OFFSET) - 1), self.size[places])

    def taken(self, places: Int) -> Layout:
        """Ascending ``places`` alone, moved together."""
        return Layout.placed(self.number[places], self.size[places])

    def without(self, places: Sequence[int]) -> Layout:
        """The others, where they are."""
        number, start, size = (np.delete(each, places) for each in (self.number, self.start, self.size))
        return Layout(number, start, size, self.end)

    def pieces(self) -> list[slice]:
        """Places that are read together."""
        cuts = np.flatnonzero(np.diff(self.start // PIECE)) + 1
        return [slice(first, last) for first, last in pairwise([0, *cuts.tolist(), len(self)]) if first < last]


def _numbers(spans: Spans) -> Int:
    return (spans.shard.astype(np.int64) << _OFFSET) + spans.offset.astype(np.int64)


def fill(layout: Layout, source: ShardSource, room: Room, workers: int, told: Told = lambda _: None) -> Layout:
    """Read everything of ``layout``, in the order of the shards and side by side, and write it where it belongs.

    Returns the layout without what a shard that ends too early does not hold. ``told`` hears, in this thread, where
    what was read without a gap ends. Raises `StoreDamaged` and what else ``source`` raises.
    """
    pieces, absent = layout.pieces(), list[int]()

    def piece(places: slice) -> list[int]:
        found = read_what_is_there(source, layout.spans(places))
        starts = layout.start[places].tolist()
        begin, end = starts[0], starts[-1] + int(layout.size[places.stop - 1])
        with room(begin, end) as memory:
            for start, data in zip(starts, found, strict=True):
                memory[start - begin : start - begin + len(data or b"")] = np.frombuffer(data or b"", np.uint8)
        return [place for place, data in enumerate(found, places.start) if data is None]

    pool = ThreadPoolExecutor(max(READERS, workers), thread_name_prefix="datahub-holding")
    try:
        for places, cut in zip(pieces, pool.map(piece, pieces), strict=True):
            absent += cut
            told(int(layout.start[places.stop]) if places.stop < len(layout) else layout.end)
    finally:
        pool.shutdown(cancel_futures=True)
    return layout.without(absent) if absent else layout


def room_in(memory: Bytes) -> Room:
    """Room in memory of this process."""
    return lambda begin, end: nullcontext(memory[begin:end])


def read_what_is_there(source: ShardSource, spans: Spans) -> list[Data | None]:
    """The spans' bytes; None for those that a shard which ends too early does not hold."""
    try:
        return list(source.read_many(spans))
    except ShardCut:
        return [_read_if_there(source, span) for span in spans.rows()]


def _read_if_there(source: ShardSource, span: tuple[int, int, int]) -> Data | None:
    try:
        return source.read(*span)
    except ShardCut:
        return None


class HeldShards:
    """A `ShardSource` of what ``memory`` holds; anything else is read from ``source``, and fails as it does there.

    What it gives are views of the memory, which stays for as long as one of them is in use.
    """

    def __init__(self, layout: Layout, memory: Memory, source: ShardSource) -> None:
        self._layout, self._memory, self._source = layout, memory, source
        self._bytes = memory.view()

    def read(self, shard: int, offset: int, size: int) -> Data:
        return self.read_many(Spans(*(np.array([each], np.int64) for each in (shard, offset, size))))[0]

    def read_many(self, spans: Spans) -> list[Data]:
        place = self._layout.find(spans)
        if len(place) and place.min() < 0:
            return self._read_apart(spans, place)
        start, end = self._layout.start[place], self._layout.start[place] + self._layout.size[place]
        held = self._bytes
        return [held[first:last] for first, last in zip(start.tolist(), end.tolist(), strict=True)]

    def _read_apart(self, spans: Spans, place: Int) -> list[Data]:
        found: list[Data] = [b""] * len(spans)
        here, elsewhere = np.flatnonzero(place >= 0), np.flatnonzero(place < 0)
        for rows, source in ((here, self), (elsewhere, self._source)):
            if len(rows):
                for row, data in zip(rows.tolist(), source.read_many(spans.take(rows)), strict=True):
                    found[row] = data
        return found

    def ahead(self, spans: Spans | None) -> bool:  # noqa: ARG002
        """Everything is there already."""
        return False

    def close(self) -> None:
        self._source.close()

    def __reduce__(self) -> tuple[type[HeldShards], tuple[Layout, Memory, ShardSource]]:
        return HeldShards, (self._layout, self._memory, self._source)
