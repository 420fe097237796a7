"""Where a dataset's next loop begins, kept in memory that it shares with the worker processes of a torch DataLoader.

A DataLoader copies a dataset into its workers and never tells it of its loops: the workers themselves must agree on
which epoch a loop runs, whether they are new for every loop or persist. All workers of a loop know one number that
those of no other loop know, made of the DataLoader's seed. The first of them to begin writes down where; the others
find it written. No lock is needed: of two that are first at once, both write the same into the half that nobody reads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from datahub.core.errors import UsageError

MASK = (1 << 63) - 1
STRIDE = 0x1E3779B97F4A7C15
SEATS = 1024
"""Workers that are told apart when a loop's number comes again."""
_WHICH, _FINISHED, _HALVES = 0, 1, 2
_WIDTH = 3


class Entry(NamedTuple):
    """``loop``: the number of the loop that began there; 0: none has yet."""

    loop: int
    epoch: int
    position: int


def number(base_seed: int, count: int) -> int:
    """The number of a DataLoader's ``count``-th loop with the same workers."""
    return (base_seed + count * STRIDE) & MASK or 1


class Board:
    """Pickled by torch.multiprocessing it stays shared; by plain pickle it is copied."""

    def __init__(self) -> None:
        self.__setstate__(torch.zeros(_HALVES + 2 * _WIDTH + SEATS, dtype=torch.int64))

    def read(self) -> Entry:
        at = _HALVES + _WIDTH * int(self._cells[_WHICH])
        return Entry(*self._cells[at : at + _WIDTH].tolist())

    @property
    def epoch(self) -> int:
        """Of the loop that runs, or of the next one (of the last one where that was left early)."""
        found = self.read()
        return found.epoch + (found.loop != 0 and int(self._cells[_FINISHED]) == found.loop)

    def put(self, entry: Entry) -> None:
        if not entry.loop:
            self._cells[-SEATS:] = 0  # what begins there is no loop that came before, whatever its number
        other = 1 - int(self._cells[_WHICH])
        at = _HALVES + _WIDTH * other
        self._cells[at : at + _WIDTH] = torch.tensor(entry)
        self._cells[_WHICH] = other

    def begin(self, loop: int, seat: int) -> Entry:
        """Where ``loop`` begins, the same for all its workers; ``seat`` is this one's number.

        Raises `UsageError` for a loop that this worker has begun before.
        """
        found = self.read()
        if found.loop == loop:
            if int(self._cells[-1 - seat % SEATS]) == loop:
                reason = "two loops of a DataLoader had the same torch seed, and cannot be told apart"
                raise UsageError(reason, "call set_epoch() before each loop, or seed torch once")
        else:
            found = Entry(loop, found.epoch + 1, 0) if found.loop else found._replace(loop=loop)
            self.put(found)
        self._cells[-1 - seat % SEATS] = loop
        return found

    def finish(self, loop: int) -> None:
        """A worker of ``loop`` has nothing more to give."""
        self._cells[_FINISHED] = loop

    def __getstate__(self) -> torch.Tensor:
        return self._cells

    def __setstate__(self, cells: torch.Tensor) -> None:
        cells.share_memory_()  # type: ignore[no-untyped-call]
        self._cells = cells
