"""A `Backend` in host memory for tests and for machines without a card: it does the least that it promises.

Enqueued work runs as late as it may: when its ticket is received, or its lane drained. What the rules of `Lane` forbid
raises `OutOfOrder`, and staged memory is overwritten as soon as it is void, so that whoever still reads it sees it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from datahub.core.errors import DamagedImage
from datahub.tensor.decode import decode_image
from datahub.tensor.device.lanes import Undecodable

T = TypeVar("T")
VOID = 0xA5
"""What stands in staged memory that nobody has written."""


class OutOfOrder(AssertionError):
    """Something was done that a real device may do in another order."""


class Rehearsal:
    """``decoding``: whether it decodes JPEGs, as the host does, or leaves them to others."""

    def __init__(self, *, decoding: bool = True) -> None:
        self.device = torch.device("cpu")
        self.lanes: list[RehearsalLane] = []
        self._decoding = decoding

    def lane(self) -> RehearsalLane:
        self.lanes.append(RehearsalLane())
        return self.lanes[-1]

    def decodes(self) -> str | None:
        return "the host, in rehearsal" if self._decoding else None

    def free_memory(self) -> int | None:
        return None


class RehearsalTicket:
    """``run`` does everything up to this work."""

    def __init__(self, work: Callable[[], Any], run: Callable[[RehearsalTicket], None]) -> None:
        self._work, self._run = work, run
        self.done = False
        self._made: Any = None
        self._error: BaseException | None = None

    def receive(self) -> Any:
        self._run(self)
        if self._error is not None:
            raise self._error
        return self._made

    def perform(self) -> None:
        try:
            self._made = self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is received
            self._error = error
        self.done = True


class RehearsalLane:
    def __init__(self) -> None:
        # Whoever receives a ticket makes the work run, beside the thread that has the lane.
        self._one_at_a_time = threading.Lock()
        self._waiting: deque[RehearsalTicket] = deque()
        self._staged = torch.empty(0, dtype=torch.uint8)

    @property
    def pending(self) -> int:
        """Works that have not run."""
        return len(self._waiting)

    def stage(self, size: int) -> torch.Tensor:
        self.drain()
        self._staged.fill_(VOID)
        if len(self._staged) < size:
            self._staged = torch.full((size,), VOID, dtype=torch.uint8)
        return self._staged[:size]

    def decode(self, encoded: Sequence[torch.Tensor], channels: int) -> list[torch.Tensor]:
        if self._waiting:
            raise OutOfOrder("decoding writes at once, into memory that queued work may still read; drain first")
        if any(each.untyped_storage().data_ptr() != self._staged.untyped_storage().data_ptr() for each in encoded):
            raise OutOfOrder("only staged memory may be decoded")
        try:
            return [decode_image(each.numpy().tobytes(), channels) for each in encoded]
        except DamagedImage as damage:
            raise Undecodable(str(damage)) from damage

    def enqueue(self, work: Callable[[], T]) -> RehearsalTicket:
        ticket = RehearsalTicket(work, self._run)
        self._waiting.append(ticket)
        return ticket

    def drain(self) -> None:
        with self._one_at_a_time:
            while self._waiting:
                self._waiting.popleft().perform()

    def _run(self, ticket: RehearsalTicket) -> None:
        with self._one_at_a_time:
            while not ticket.done:
                self._waiting.popleft().perform()
