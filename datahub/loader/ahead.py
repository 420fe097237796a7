"""The samples of coming batches, worked out many at a time: its fixed cost is most of small batches'."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datahub.order.population import Int, Line

SAMPLES = 1 << 14
"""About as many samples are placed at a time, once a loop goes on: the first time one batch, then twice as many."""
LOOPS = 4
"""Loops whose batches are remembered: the one that makes batches and the one that announces them do not meet."""


class _Block(NamedTuple):
    """Rows of the slots of some batches, ``(batches, slots)``: at ``position``, ``position + stride``, ..."""

    line: Line
    position: int
    stride: int
    rows: Int

    def number(self, position: int, stride: int) -> int | None:
        """Which of the batches begins at ``position``, the next one after the last included."""
        number, rest = divmod(position - self.position, self.stride)
        return number if stride == self.stride and not rest and 0 <= number <= len(self.rows) else None


class Ahead:
    """Slots ``first .. last`` of global batches of ``batch``, as long as each of ``lanes`` fills its share of them.

    Answers are those of `Line.slots` and `Line.rows`. Threads may ask at once.
    """

    def __init__(self, batch: int, lanes: int, first: int, last: int) -> None:
        self._batch, self._lanes, self._slots = batch, lanes, (first, last)
        self._blocks: tuple[_Block, ...] = ()

    def rows(self, line: Line, size: int, position: int, stride: int) -> Int | None:
        """Rows of the batch at ``position`` of an epoch of ``size``, all valid; None where some slot of it is not.

        ``stride``: to the batch that is asked for next, a multiple of the batch.
        """
        count = 1
        before = tuple(each for each in self._blocks if each.line is line)
        for block in before:
            number = block.number(position, stride)
            if number is not None and number < len(block.rows):
                found: Int = block.rows[number]
                return found.copy()  # it becomes the caller's
            if number is not None:
                count = 2 * len(block.rows)
                before = tuple(each for each in before if each is not block)
        count = min(count, self._full(size, position, stride), self._most)
        if count < 1:
            return None
        placed = self._placed(line, position, stride, count)
        self._blocks = (_Block(line, position, stride, placed), *before[: LOOPS - 1])
        return placed[:1].reshape(-1).copy()

    @property
    def _most(self) -> int:
        return max(1, SAMPLES // max(1, self._slots[1] - self._slots[0]))

    def _full(self, size: int, position: int, stride: int) -> int:
        """How many batches from ``position`` on have no invalid slot on any rank: the shortest lane decides."""
        if position % self._lanes:
            return 0  # resumed from a run with another batch
        share = self._batch // self._lanes
        last = size // self._lanes - position // self._lanes - share
        return last // (stride // self._lanes) + 1 if last >= 0 else 0

    def _placed(self, line: Line, position: int, stride: int, count: int) -> Int:
        places, _ = line.slots(self._batch, position, *self._slots)
        steps = np.arange(count) * (stride // self._lanes)
        return line.rows((places + steps[:, None]).ravel()).reshape(count, -1)
