"""The order of samples is a formula: (seed, epoch, position) -> sample, for any number of ranks and workers.

Shards are cut into blocks of about B consecutive samples and the blocks permuted; the line of permuted blocks is cut
into L lanes; inside a lane, windows of W pieces (a block cut by a lane's border is two pieces) are shuffled by a keyed
bijection. A global batch has ``batch`` slots, of which lane l owns the l-th share. Nothing depends on ranks: rank r of
R owns a range of slots. Memory is O(blocks), time O(1) a position.

Everything here is a pure function of numbers; what it gives is frozen by golden vectors in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import EllipsisType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datahub.core.errors import BadArgument
from datahub.order.permutation import Permutation

VERSION = 1
"""Raised when the same arguments would give another order; part of every state."""

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OrderOptions:
    """What a caller may choose. Raises `BadArgument`."""

    window: int | Literal["all"] = "all"
    """Blocks shuffled together; "all" gives a uniform shuffle of a lane."""
    lanes: int = 1
    """Parts of the line that are read side by side; divides the global batch."""

    def __post_init__(self) -> None:
        if self.window != "all" and not (_is_int(self.window) and self.window >= 1):
            raise BadArgument("window", self.window, "must be 'all' or a positive number of blocks")
        if not (_is_int(self.lanes) and self.lanes >= 1):
            raise BadArgument("lanes", self.lanes, "must be a positive number")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def cut_blocks(shards: Sequence[int], block: int) -> Int:
    """Edges of the blocks: a shard of n samples has ceil(n / block), sizes differing by at most 1.

    Returns int64 ``(blocks + 1,)``: block k holds samples ``edges[k] .. edges[k + 1]``.
    """
    samples = np.asarray(shards, np.int64)
    counts = -(-samples // block)
    shard = np.repeat(np.arange(len(samples)), counts)
    first = np.cumsum(counts) - counts
    number = np.arange(1, len(shard) + 1) - first[shard]
    base = np.cumsum(samples) - samples
    ends = base[shard] + samples[shard] * number // counts[shard]
    return np.concatenate([np.zeros(1, np.int64), ends])


def share_of(batch: int, rank: int, world_size: int) -> tuple[int, int]:
    """The slots ``[first, last)`` of a global batch that ``rank`` of ``world_size`` owns."""
    return rank * batch // world_size, (rank + 1) * batch // world_size


def rank_of(slots: ArrayLike, batch: int, world_size: int) -> Int:
    """The inverse of `share_of`: the rank that owns each slot."""
    return ((np.asarray(slots, np.int64) + 1) * world_size - 1) // batch


class EpochOrder:
    """The order of one epoch over samples whose block ``edges`` are given.

    ``counts`` (optional, int64, one a block) are the samples that a filter leaves in each block. `locate` then speaks
    of the k-th kept sample of a block, and whoever holds the filter's bitmap knows which that is.
    """

    def __init__(
        self,
        edges: Int,
        *,
        seed: int,
        epoch: int,
        options: OrderOptions | None = None,
        shuffle: bool = True,
        counts: Int | None = None,
    ) -> None:
        options = OrderOptions() if options is None else options
        sizes = np.diff(edges) if counts is None else np.asarray(counts, np.int64)
        self._edges, self._filtered = edges, counts is not None
        self._key = (seed, epoch)
        self._sigma = np.arange(len(sizes), dtype=np.int64)
        self._blocks = Permutation(len(sizes), seed, epoch, "block") if shuffle else None
        if self._blocks is not None:
            self._sigma = self._blocks(self._sigma)
        self._line = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[self._sigma])])
        self.size = int(self._line[-1])
        """Samples of the epoch."""
        lanes = options.lanes
        self.borders = np.array([lane * self.size // lanes for lane in range(lanes + 1)], np.int64)
        """int64 ``(lanes + 1,)``: lane l holds line positions ``borders[l] .. borders[l + 1]``."""
        self._windows, self._firsts = _cut_windows(self._line, self.borders, options.window)

    @property
    def lanes(self) -> int:
        return len(self.borders) - 1

    def steps(self, batch: int, *, drop_last: bool = False) -> int:
        """Global batches of the epoch, the same for every rank."""
        return self.size // batch if drop_last else -(-self.size // batch)

    def slots(self, batch: int, position: int, first: int = 0, last: int | None = None) -> tuple[Int, Bool]:
        """Slots ``first .. last`` of the global batch that starts at ``position``: (line positions, valid).

        ``position`` is what the whole job has consumed of the epoch, g * batch for global batch g. A lane with m
        samples left spreads them evenly over its share of the slots, so slots are invalid only where a lane runs out.
        An invalid slot names some sample of its lane, to fill a row with.
        """
        share, consumed = self._shares(batch, position)
        slot = np.arange(first, batch if last is None else last, dtype=np.int64)
        lane, offset = slot // share, slot % share
        length = np.diff(self.borders)[lane]
        left = np.clip(length - consumed, 0, share)
        item = offset * left // share
        valid = (offset + 1) * left // share > item
        line = self.borders[lane] + np.clip(consumed + item, 0, np.maximum(length - 1, 0))
        return np.minimum(line, max(self.size - 1, 0)), valid

    def slot_of(self, positions: ArrayLike, batch: int, start: int = 0) -> tuple[Int, Int]:
        """The inverse of `slots`: line positions -> (position of the global batch, slot in it).

        ``start`` is where a run that changed its batch size took up: its batches begin at start, start + batch, ...
        What was consumed before ``start`` is in none of them: `BadArgument`.
        """
        share, consumed = self._shares(batch, start)
        line = self._checked(positions, self.size)
        lane = np.searchsorted(self.borders, line, "right") - 1
        item = line - self.borders[lane] - consumed
        if item.size and int(item.min()) < 0:
            raise BadArgument("start", start, "some of these samples were consumed before it")
        step, within = item // share, item % share
        left = np.clip(np.diff(self.borders)[lane] - consumed - step * share, 0, share)
        return start + step * batch, lane * share + -(-(within + 1) * share // left) - 1

    def valid_in(self, batch: int, position: int) -> int:
        """How many slots of the whole global batch at ``position`` are valid."""
        share, consumed = self._shares(batch, position)
        return int(np.clip(np.diff(self.borders) - consumed, 0, share).sum())

    def locate(self, positions: ArrayLike) -> tuple[Int, Int]:
        """Line positions -> (block, offset among the block's kept samples)."""
        line = self._checked(positions, self.size)
        if self._blocks is not None:
            line = self._windowed(line)
        piece = np.searchsorted(self._line, line, "right") - 1
        return self._sigma[piece], line - self._line[piece]

    def line_of(self, blocks: ArrayLike, offsets: ArrayLike) -> Int:
        """The inverse of `locate`: (block, offset among its kept samples) -> line positions."""
        block, offset = self._checked(blocks, len(self._sigma)), np.asarray(offsets, np.int64)
        place = block if self._blocks is None else self._blocks.inverse(block)
        start = self._line[place]
        if offset.size and bool(((offset < 0) | (offset >= self._line[place + 1] - start)).any()):
            raise IndexError("an offset is not among its block's kept samples")
        line = start + offset
        return line if self._blocks is None else self._windowed(line, inverse=True)

    def sample(self, positions: ArrayLike) -> Int:
        """Line positions -> samples. Without a filter only."""
        self._unfiltered()
        block, offset = self.locate(positions)
        return self._edges[block] + offset

    def position(self, samples: ArrayLike) -> Int:
        """The inverse of `sample`: where each sample stands on this epoch's line."""
        self._unfiltered()
        wanted = self._checked(samples, self.size)
        block = np.searchsorted(self._edges, wanted, "right") - 1
        return self.line_of(block, wanted - self._edges[block])

    def _unfiltered(self) -> None:
        if self._filtered:
            raise BadArgument("counts", "...", "a filtered order does not know its samples", "use locate")

    @staticmethod
    def _checked(values: ArrayLike, end: int) -> Int:
        """The values as int64; raises ``IndexError`` outside ``range(end)``, where a search would find a neighbour."""
        found = np.asarray(values, np.int64)
        if found.size and (int(found.min()) < 0 or int(found.max()) >= end):
            raise IndexError(f"positions must lie in [0, {end})")
        return found

    def _shares(self, batch: int, position: int) -> tuple[int, int]:
        """Slots of each lane in a batch, and samples of each lane consumed before ``position``."""
        if batch < 1 or batch % self.lanes:
            raise BadArgument("batch", batch, f"must be a positive multiple of the {self.lanes} lanes")
        return batch // self.lanes, position // self.lanes

    def _windowed(self, line: Int, *, inverse: bool = False) -> Int:
        """Apply (or undo) each window's bijection."""
        window = np.searchsorted(self._windows, line, "right") - 1
        out = np.empty_like(line)
        for number, here in _groups(window):
            start = int(self._windows[number])
            size = int(self._windows[number + 1]) - start
            lane = int(np.searchsorted(self._firsts, number, "right")) - 1
            permutation = _bijection(size, *self._key, "window", lane, number - int(self._firsts[lane]))
            out[here] = start + (permutation.inverse if inverse else permutation)(line[here] - start)
        return out


_bijection = lru_cache(maxsize=4096)(Permutation)
"""Windows last for many batches, and deriving the keys of one costs more than permuting a lane's few samples."""


def _groups(labels: Int) -> Iterator[tuple[int, Int | EllipsisType]]:
    """Each distinct label with the places that carry it."""
    if labels.size and labels.min() == labels.max():
        yield int(labels.flat[0]), ...
        return
    for label in np.unique(labels):
        yield int(label), np.flatnonzero(labels == label)


def _cut_windows(line: Int, borders: Int, window: int | Literal["all"]) -> tuple[Int, Int]:
    """Window edges over the line, and the number of each lane's first window.

    A lane's P pieces form ceil(P / window) windows whose piece counts differ by at most 1. A window is keyed by its
    lane and its number in it.
    """
    edges: list[Int] = []
    counts = np.zeros(len(borders) - 1, np.int64)
    for lane, (start, end) in enumerate(pairwise(borders)):
        if start == end:
            continue
        inner = line[np.searchsorted(line, start, "right") : np.searchsorted(line, end, "left")]
        cuts = np.unique(np.concatenate([[start], inner])).astype(np.int64)
        counts[lane] = count = 1 if window == "all" else -(-len(cuts) // window)
        edges.append(cuts[len(cuts) * np.arange(count, dtype=np.int64) // count])
    return np.concatenate([*edges, line[-1:]]), np.cumsum(counts) - counts
