"""What a loader knows of its worker processes: hired with its first loop, asked in turn, let go with the loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datahub.core.errors import WorkerDied
from datahub.loader.counters import Counters
from datahub.loader.process.crew import MAKING, Crew, Order
from datahub.loader.process.kit import Kit
from datahub.loader.quarantine import Quarantine


class Staff:
    """Worker processes of one loader; they stay for later loops, and are hired anew where one died."""

    def __init__(self, counters: Counters, quarantine: Quarantine | None) -> None:
        self._counters, self._quarantine = counters, quarantine
        self._crew: Crew | None = None

    @property
    def sets_aside(self) -> bool:
        """Whether damaged samples are recorded instead of raised."""
        return self._quarantine is not None

    def hired(self, kit: Callable[[], Kit]) -> Team:
        """For one loop. ``kit`` is asked only where workers must be started."""
        if self._crew is None or self._crew.failure is not None or self._crew.closed:
            self.close()
            self._crew = Crew(kit())
        return Team(self._crew, self)

    def close(self, patience: float = 0.0) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.close(patience)

    def taken(self, crew: Crew, order: Order, timeout: float) -> Any:
        """The batch of an order, or the error in its place. Raises ``TimeoutError`` having ended the workers."""
        try:
            outcome = order.result(timeout)
        except TimeoutError:
            crew.kill(WorkerDied(MAKING, f"none came within timeout={timeout:g} s"))
            raise
        if outcome.spent is not None:
            self._counters.merge(outcome.spent)
        if self._quarantine is not None:
            for row, damage in outcome.aside:
                self._quarantine.add(row, damage)
        if outcome.error is not None:
            raise outcome.error
        return outcome.batch


class Team:
    """The workers as one loop sees them: its k-th batch is made by worker k modulo their number."""

    def __init__(self, crew: Crew, staff: Staff) -> None:
        self._crew, self._staff, self._turn = crew, staff, 0

    @property
    def workers(self) -> int:
        return self._crew.workers

    def ask(self, epoch: int, position: int, batch: int, stride: int) -> Errand:
        """``stride``: samples from a batch of the loop to its next."""
        order = self._crew.ask(self._turn % self.workers, epoch, position, self.workers * stride - batch)
        self._turn += 1
        return Errand(self._crew, order, self._staff)

    def pass_over(self) -> None:
        """What was asked for and has not begun is not wanted any more."""
        self._crew.pass_over()


class Errand:
    """A batch in the making, for an `Iteration`: it is its own ``future``."""

    def __init__(self, crew: Crew, order: Order, staff: Staff) -> None:
        self._crew, self._order, self._staff = crew, order, staff
        self._taken = False

    @property
    def future(self) -> Errand:
        return self

    def done(self) -> bool:
        return self._taken or self._order.done()

    def result(self, timeout: float) -> Any:
        found = self._staff.taken(self._crew, self._order, timeout)
        self._taken = True
        return found

    def drop(self) -> None:
        self._order.drop()
