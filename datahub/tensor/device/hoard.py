"""Bytes that are kept on a device whole, of which batches of ranges come back to the host in one copy each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from datahub.tensor.device.lanes import Lane, on_device

Ints = NDArray[np.int64]
WORD = torch.int64
"""What is gathered at a time is so many of these: a device moves bytes one by one as slowly as words."""


class Hoard:
    """``size`` bytes on ``device``, a multiple of ``unit``, to which ranges are aligned; ``unit`` is of whole words.

    ``lane`` gives a lane for a thread alone. Taking the memory may raise `DeviceOutOfMemory`. Safe in threads.
    """

    def __init__(
        self, size: int, unit: int, lane: Callable[[], AbstractContextManager[Lane]], device: torch.device
    ) -> None:
        self._unit, self._lane, self._device = unit, lane, device
        with lane() as mine:
            empty = partial(torch.empty, size // WORD.itemsize, dtype=WORD, device=device)
            self._words = mine.enqueue(empty).receive().view(-1, unit // WORD.itemsize)
            mine.drain()  # other lanes write to it

    @contextmanager
    def room(self, begin: int, end: int) -> Iterator[NDArray[np.uint8]]:
        """Host memory for bytes ``[begin, end)``, ``begin`` aligned, which are on the device after the context."""
        first, last = begin // self._unit, -(-end // self._unit)
        with self._lane() as lane:
            staged = lane.stage((last - first) * self._unit)
            yield staged.numpy()[: end - begin]
            there = self._words[first:last]
            lane.enqueue(lambda: there.copy_(staged.view(WORD).view(there.shape), non_blocking=True))
            lane.drain()  # it is there for every lane

    def ranges(self, start: Ints, size: Ints) -> NDArray[np.uint8]:
        """The bytes of some aligned ranges, one after the other, each at a multiple of the unit, in host memory.

        Waits for the device on the host, and for nothing but a lane of its own.
        """
        units = -(-size // self._unit)
        ends = np.cumsum(units)
        total = int(ends[-1]) if len(ends) else 0
        rows = np.arange(total) + np.repeat(start // self._unit - (ends - units), units)
        with self._lane() as lane:
            staged = lane.stage(total * self._unit + rows.nbytes)
            found, told = staged[: total * self._unit], staged[total * self._unit :].view(torch.int64)
            told.copy_(torch.from_numpy(rows))

            def gather() -> None:
                words = self._words.index_select(0, on_device(told, self._device))
                found.view(WORD).view(words.shape).copy_(words, non_blocking=True)

            lane.enqueue(gather)
            lane.drain()
            return found.numpy().copy()  # what is staged is void once another thread has the lane
