"""Random draws as a formula: (seed, epoch, position, name) -> numbers, whoever asks, in whatever order.

A batch that is made again, on other ranks, threads or devices, gets the same draws bit for bit: they hang on where a
sample stands in its epoch (DESIGN.md, "Augmentation draws"), never on a generator's state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datahub.order.permutation import derive, hashed

_MANTISSA = np.uint64(11)
_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True)
class Draws:
    """What a batch's rows may draw. ``positions`` int64 ``(B,)``: samples consumed before the batch, plus the slot."""

    seed: int
    epoch: int
    positions: NDArray[np.int64]

    @staticmethod
    def none(count: int) -> Draws:
        """Draws of no epoch, for asking what does not hang on them."""
        return Draws(0, 0, np.zeros(count, np.int64))

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: slice | NDArray[np.int64]) -> Draws:
        """The draws of some of the rows: the same numbers that those rows had."""
        return Draws(self.seed, self.epoch, self.positions[rows])

    def again(self, times: int) -> Draws:
        """Draws of their own for what is done ``times`` more; the first time has these."""
        return self if not times else replace(self, seed=derive(self.seed, "again", times))

    def uniform(self, name: str, count: int = 1) -> NDArray[np.float64]:
        """``(B, count)`` numbers in [0, 1). Each ``name`` is a stream of its own."""
        key = np.uint64(derive(self.seed, self.epoch, "draw", name))
        cells = np.add.outer(self.positions * count, np.arange(count)).astype(np.uint64)
        # Twice: one round's low bits are too regular over neighbouring positions for 53 of them to be used.
        words = hashed(hashed(cells, key), key ^ np.uint64(0x9E3779B97F4A7C15))
        return (words >> _MANTISSA).astype(np.float64) * _UNIT

    def integers(self, name: str, high: int | NDArray[np.int64], count: int = 1) -> NDArray[np.int64]:
        """``(B, count)`` whole numbers in [0, high); ``high`` is one number or one a row, ``(B, 1)``."""
        return (self.uniform(name, count) * high).astype(np.int64)
