"""The order of samples is a formula: (seed, epoch, position) -> sample, for any number of ranks and workers.

Blocks of about B consecutive samples are permuted; the line of permuted blocks is cut into L lanes; inside a lane,
windows of W pieces are shuffled by a keyed bijection. Global batch g has ``batch`` slots, of which lane l owns the
l-th share. Nothing depends on ranks: rank r of R owns a range of slots. Memory is O(blocks), time O(1) a position.

Everything here is a pure function of numbers; what it gives is frozen by golden vectors in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datahub.order.permutation import Permutation

VERSION = 1
"""Raised when the same arguments would give another order; part of every state."""

Int = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OrderOptions:
    """What a caller may choose. ``window``: pieces shuffled together, "all" for a uniform shuffle."""

    window: int | Literal["all"] = "all"
    lanes: int = 1

    def __post_init__(self) -> None:
        if self.window != "all" and (not isinstance(self.window, int) or self.window < 1):
            raise ValueError(f"window={self.window!r} must be 'all' or a positive number of blocks")
        if self.lanes < 1:
            raise ValueError(f"lanes={self.lanes} must be positive")


def cut_blocks(shards: Sequence[int], block: int) -> Int:
    """Edges of the blocks: a shard of n samples has ceil(n / block), sizes differing by at most 1.

    Returns int64 ``(blocks + 1,)``: block k holds samples ``edges[k] .. edges[k + 1]``.
    """
    parts = [np.zeros(1, np.int64)]
    base = 0
    for samples in shards:
        count = -(-samples // block)
        if count:
            parts.append(base + samples * np.arange(1, count + 1, dtype=np.int64) // count)
        base += samples
    return np.concatenate(parts)


@dataclass(frozen=True)
class EpochOrder:
    """One epoch's order of the samples whose block ``edges`` are given.

    ``counts`` (optional, one a block) are the samples left in each block by a filter; `sample` then speaks of the
    k-th kept sample of a block, and it is the caller's bitmap that says which that is.
    """

    edges: Int
    seed: int
    epoch: int
    options: OrderOptions = OrderOptions()
    shuffle: bool = True
    counts: Int | None = None
    size: int = field(init=False)
    _sigma: Int = field(init=False, repr=False)
    _line: Int = field(init=False, repr=False)
    lanes: Int = field(init=False, repr=False)
    _windows: Int = field(init=False, repr=False)
    _tags: list[tuple[int, int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = np.diff(self.edges) if self.counts is None else np.asarray(self.counts, np.int64)
        blocks = len(sizes)
        sigma = np.arange(blocks, dtype=np.int64)
        if self.shuffle:
            sigma = Permutation(blocks, self.seed, self.epoch, "block")(sigma)
        line = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[sigma])])
        total, lanes = int(line[-1]), self.options.lanes
        borders = np.array([lane * total // lanes for lane in range(lanes + 1)], np.int64)
        windows, tags = _cut_windows(line, borders, self.options.window)
        values = {"size": total, "_sigma": sigma, "_line": line, "lanes": borders, "_windows": windows, "_tags": tags}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def steps(self, batch: int) -> int:
        return -(-self.size // batch)

    def _shuffled(self, positions: Int, *, inverse: bool = False) -> Int:
        """Apply (or undo) each window's bijection."""
        window = np.searchsorted(self._windows, positions, "right") - 1
        out = np.empty_like(positions)
        for each in np.unique(window):
            mask = window == each
            start = int(self._windows[each])
            permutation = Permutation(
                int(self._windows[each + 1]) - start, self.seed, self.epoch, "window", *self._tags[each]
            )
            inside = positions[mask] - start
            out[mask] = start + (permutation.inverse(inside) if inverse else permutation(inside))
        return out

    def locate(self, positions: ArrayLike) -> tuple[Int, Int]:
        """Line positions -> (block, offset among the block's kept samples)."""
        line = np.asarray(positions, np.int64)
        if self.shuffle:
            line = self._shuffled(line)
        piece = np.searchsorted(self._line, line, "right") - 1
        return self._sigma[piece], line - self._line[piece]

    def sample(self, positions: ArrayLike) -> Int:
        """Line positions -> samples (without a filter)."""
        block, offset = self.locate(positions)
        return self.edges[block] + offset

    def position(self, samples: ArrayLike) -> Int:
        """The inverse of `sample`: where each sample stands in this epoch."""
        wanted = np.asarray(samples, np.int64)
        block = np.searchsorted(self.edges, wanted, "right") - 1
        where = np.empty_like(self._sigma)
        where[self._sigma] = np.arange(len(self._sigma))
        line = self._line[where[block]] + wanted - self.edges[block]
        return self._shuffled(line, inverse=True) if self.shuffle else line

    def slots(
        self, batch: int, position: int, first: int = 0, last: int | None = None
    ) -> tuple[Int, NDArray[np.bool_]]:
        """Slots ``first .. last`` of the global batch that starts at ``position``: (line positions, valid).

        ``position`` is what the whole job has consumed, g * batch for global batch g. Lane l owns ``batch / lanes``
        slots; a lane with m samples left spreads them over its share, so slots are invalid only where a lane runs
        out. An invalid slot holds some sample of its lane as a filler.
        """
        share = batch // self.options.lanes
        consumed = position // self.options.lanes
        slot = np.arange(first, batch if last is None else last, dtype=np.int64)
        lane, offset = slot // share, slot % share
        length = np.diff(self.lanes)[lane]
        left = np.clip(length - consumed, 0, share)
        item = offset * left // share
        valid = (offset + 1) * left // share > item
        line = self.lanes[lane] + np.clip(consumed + item, 0, np.maximum(length - 1, 0))
        return np.minimum(line, max(self.size - 1, 0)), valid

    def valid_in(self, batch: int, position: int) -> int:
        """How many slots of the whole global batch at ``position`` are valid."""
        share, consumed = batch // self.options.lanes, position // self.options.lanes
        return int(np.clip(np.diff(self.lanes) - consumed, 0, share).sum())


def share_of(batch: int, rank: int, world_size: int) -> tuple[int, int]:
    """The slots ``[first, last)`` of a global batch that ``rank`` of ``world_size`` owns."""
    return rank * batch // world_size, (rank + 1) * batch // world_size


def _cut_windows(line: Int, borders: Int, window: int | Literal["all"]) -> tuple[Int, list[tuple[int, int]]]:
    """Window edges over the line, and each window's (lane, number): the key of its bijection."""
    edges: list[Int] = []
    tags: list[tuple[int, int]] = []
    for lane in range(len(borders) - 1):
        start, end = borders[lane], borders[lane + 1]
        if start == end:
            continue
        inner = line[np.searchsorted(line, start, "right") : np.searchsorted(line, end, "left")]
        cuts = np.unique(np.concatenate([[start], inner])).astype(np.int64)
        pieces = len(cuts)
        count = 1 if window == "all" else -(-pieces // window)
        edges.append(cuts[[pieces * i // count for i in range(count)]])
        tags += [(lane, i) for i in range(count)]
    return np.concatenate([*edges, line[-1:]]), tags
