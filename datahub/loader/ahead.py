"""The samples of coming batches, worked out many at a time: its fixed cost is most of small batches'."""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

import numpy as np

from datahub.order.population import Int, Line

SAMPLES = 1 << 14
"""About as many samples are placed at a time, once a loop goes on: at first one batch, then `GROWTH` times as many."""
GROWTH = 4
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

    Answers are those of `Line.slots` and `Line.rows`. Threads may ask at once: one of them places, and the others wait
    for it, for what they want is most likely among it. Usable after fork.
    """

    def __init__(self, batch: int, lanes: int, first: int, last: int) -> None:
        self._batch, self._lanes, self._slots = batch, lanes, (first, last)
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._blocks: tuple[_Block, ...] = ()

    def rows(self, line: Line, size: int, position: int, stride: int) -> Int | None:
        """Rows of the batch at ``position`` of an epoch of ``size``, all valid; None where some slot of it is not.

        ``stride``: to the batch that is asked for next, a multiple of the batch.
        """
        if self._process != os.getpid():
            self._begin()  # a thread of the parent's may have held the lock
        found = self._placed_before(line, position, stride)
        if found is None:
            with self._lock:
                found = self._placed_before(line, position, stride)
                if found is None:
                    found = self._place(line, size, position, stride)
        return None if found is None else found.copy()  # it becomes the caller's

    def _placed_before(self, line: Line, position: int, stride: int) -> Int | None:
        for block in self._blocks:
            number = block.number(position, stride) if block.line is line else None
            if number is not None and number < len(block.rows):
                found: Int = block.rows[number]
                return found
        return None

    def _place(self, line: Line, size: int, position: int, stride: int) -> Int | None:
        """Place a batch and, where it goes on from batches placed before, more of those after it."""
        kept = [each for each in self._blocks if each.line is line]
        before = next((each for each in kept if each.number(position, stride) is not None), None)
        count = 1 if before is None else GROWTH * len(before.rows)
        count = min(count, self._full(size, position, stride), self._most)
        if count < 1:
            return None
        made = _Block(line, position, stride, self._placed(line, position, stride, count))
        self._blocks = (made, *(each for each in kept if each is not before))[:LOOPS]
        first: Int = made.rows[0]
        return first

    def __reduce__(self) -> tuple[type[Ahead], tuple[int, int, int, int]]:
        return Ahead, (self._batch, self._lanes, *self._slots)

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
