"""What an epoch is made of: a split, the part of it that a filter keeps, or a mixture. Numbers only; no file is read.

A `Population` makes the `Line` of an epoch: so many positions, cut into lanes and slots, each of which holds a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from datahub.order.bitmap import Bitmap
from datahub.order.formula import EpochOrder, OrderOptions

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Keyed:
    """What decides an epoch's order beside the samples. ``batch`` is the whole job's."""

    seed: int
    epoch: int
    shuffle: bool
    options: OrderOptions
    batch: int


class Line(Protocol):
    """The positions of one epoch. `EpochOrder` explains slots."""

    def slots(self, batch: int, position: int, first: int = 0, last: int | None = None) -> tuple[Int, Bool]: ...

    def valid_in(self, batch: int, position: int) -> int: ...

    def rows(self, positions: Int) -> Int:
        """Line positions -> rows of the population."""
        ...


class Population(Protocol):
    """Immutable, shared by all epochs."""

    def size(self, batch: int, lanes: int, /) -> int:
        """Samples of an epoch, the same for every epoch."""
        ...

    def every(self) -> Int:
        """The rows that an epoch may hold, ascending."""
        ...

    def line(self, keyed: Keyed) -> Line: ...


class Blocks:
    """The blocks of a split, or what ``kept`` leaves in them."""

    def __init__(self, edges: Int, kept: Bitmap | None = None) -> None:
        self.edges, self.kept = edges, kept
        self.before = None if kept is None else kept.before(edges)
        """int64: kept samples before each edge."""
        self.samples = int(edges[-1]) if kept is None else len(kept)

    def size(self, _batch: int, _lanes: int, /) -> int:
        return self.samples

    def every(self) -> Int:
        numbers = np.arange(self.samples, dtype=np.int64)
        return numbers if self.kept is None else self.kept.rows(numbers)

    def line(self, keyed: Keyed) -> Line:
        return BlockLine(self, self.order(keyed.seed, keyed))

    def order(self, seed: int, keyed: Keyed) -> EpochOrder:
        counts = None if self.before is None else np.diff(self.before)
        epoch, options, shuffle = keyed.epoch, keyed.options, keyed.shuffle
        return EpochOrder(self.edges, seed=seed, epoch=epoch, options=options, shuffle=shuffle, counts=counts)

    def rows(self, order: EpochOrder, positions: Int) -> Int:
        """The rows at line positions of an `order` of these blocks."""
        block, offset = order.locate(positions)
        if self.kept is None or self.before is None:
            return self.edges[block] + offset
        return self.kept.rows(self.before[block] + offset)


class BlockLine:
    """The line of `Blocks` in one epoch."""

    def __init__(self, blocks: Blocks, order: EpochOrder) -> None:
        self._blocks, self._order = blocks, order
        self.slots, self.valid_in = order.slots, order.valid_in

    def rows(self, positions: Int) -> Int:
        return self._blocks.rows(self._order, positions)


def cut_evenly(size: int, lanes: int) -> EpochOrder:
    """A line of ``size`` positions of which only `EpochOrder.slots` and its like are asked."""
    edges = np.array([0, size], np.int64)
    return EpochOrder(edges, seed=0, epoch=0, options=OrderOptions("all", lanes), shuffle=False)
