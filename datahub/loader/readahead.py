"""Telling a source what batches to come will read, as far ahead as it wants to know."""

from __future__ import annotations

import time
from collections.abc import Callable

from datahub.loader.schedule import Schedule, Step

SECONDS = 60.0
"""How far ahead of need, at the pace of the loop so far."""
STEPS = 256
"""Batches ahead while no pace is known."""
PACED = 16
"""Batches after which there is a pace."""
AT_ONCE = 4
"""Batches announced between two that are handed out, so that announcing never holds one up for long."""


class ReadAhead:
    """``announce`` takes a step, or None for "nothing of that holds any more", and says whether to go on.

    ``between``: samples of the batches that others make between two of this loop's.
    """

    def __init__(
        self, schedule: Schedule, announce: Callable[[Step | None], bool], epoch: int, *, between: int = 0
    ) -> None:
        self._schedule, self._announce, self._epoch, self._between = schedule, announce, epoch, between
        self._told = 0
        self._began: tuple[float, int] | None = None
        self._wanted = announce(None)

    def seek(self) -> None:
        """The loop goes on elsewhere in its epoch."""
        self.end()
        self._told, self._began = 0, None

    def go(self, position: int) -> None:
        """The batch at ``position`` is about to be made."""
        if not self._wanted:
            return
        if self._began is None:
            self._began = time.monotonic(), position
        self._told = max(self._told, position)
        last = position + self._steps(position) * self._stride
        for _ in range(AT_ONCE):
            after = self._schedule.after(self._told)
            if after is None or self._told > last:
                return
            more = self._announce(self._schedule.step(self._epoch, self._told, self._between))
            self._told = after + self._between
            if not more:
                return

    @property
    def told(self) -> int:
        """Where in the epoch what was announced ends; 0: nothing was."""
        return self._told

    def end(self) -> None:
        """Nothing of what was announced and not read is needed."""
        if self._wanted:
            self._announce(None)

    def _steps(self, position: int) -> int:
        assert self._began is not None
        since, first = self._began
        done = (position - first) / self._stride
        return STEPS if done < PACED else int(SECONDS * done / max(time.monotonic() - since, 1e-3)) + 1

    @property
    def _stride(self) -> int:
        return self._schedule.plan.batch + self._between
