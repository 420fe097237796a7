"""The samples of coming batches, worked out many at a time: its fixed cost is most of small batches'."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datahub.order.population import Int, Line

SAMPLES = 1 << 14
"""About as many samples are placed at a time."""


class _Block(NamedTuple):
    """Rows of the slots of consecutive batches, ``(batches, slots)``, from the batch at ``position`` on."""

    line: Line
    position: int
    rows: Int


class Ahead:
    """Slots ``first .. last`` of global batches of ``batch``, as long as each of ``lanes`` fills its share of them.

    Answers are those of `Line.slots` and `Line.rows`. Threads may ask at once.
    """

    def __init__(self, batch: int, lanes: int, first: int, last: int) -> None:
        self._batch, self._lanes, self._slots = batch, lanes, (first, last)
        self._block: _Block | None = None

    def rows(self, line: Line, size: int, position: int) -> Int | None:
        """Rows of the batch at ``position`` of an epoch of ``size``, all valid; None where some slot of it is not."""
        block = self._block
        if block is None or block.line is not line or not self._holds(block, position):
            count = min(self._full(size, position), SAMPLES // max(1, self._slots[1] - self._slots[0]))
            if count < 1:
                return None
            block = self._block = _Block(line, position, self._placed(line, position, count))
        found: Int = block.rows[(position - block.position) // self._batch]
        return found.copy()  # it becomes the caller's

    def _holds(self, block: _Block, position: int) -> bool:
        number, rest = divmod(position - block.position, self._batch)
        return not rest and 0 <= number < len(block.rows)

    def _full(self, size: int, position: int) -> int:
        """How many batches from ``position`` on have no invalid slot on any rank: the shortest lane decides."""
        if position % self._lanes:
            return 0  # resumed from a run with another batch
        share = self._batch // self._lanes
        return max(0, (size // self._lanes - position // self._lanes) // share)

    def _placed(self, line: Line, position: int, count: int) -> Int:
        places, _ = line.slots(self._batch, position, *self._slots)
        steps = np.arange(count) * (self._batch // self._lanes)
        return line.rows((places + steps[:, None]).ravel()).reshape(count, -1)
