"""The caller's side of worker processes: who they are, what each was asked for, and what came of it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from datahub.core.errors import UsageError, WorkerDied
from datahub.loader.process import slab
from datahub.loader.process.kit import Kit, packed
from datahub.loader.process.nursery import BORN, GRACE
from datahub.loader.process.slab import Slab
from datahub.loader.process.workshop import ASKED, MADE, Outcome

INSIDE = "DATAHUB_WORKER"
"""Set in the environment of worker processes."""
KEPT = 64
"""Slabs, idle or in use, whose descriptors are kept so that they are used again."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
REPORT = 2.0
"""Seconds in which the nursery tells how a worker ended."""
END = GRACE + 4.0
"""Seconds in which the nursery ends, after which it is killed."""
MAKING = "making a batch"
_CODE = "import sys; sys.path[:] = {path!r}; from datahub.loader.process.nursery import main; main(*{descriptors!r})"

_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


class Order:
    """A batch that a worker was asked for."""

    def __init__(self, crew: Crew, number: int, memory: Slab) -> None:
        self._crew, self.number, self.slab = crew, number, memory
        self.made: tuple[int, int] | None = None
        """Where in the slab it stands."""
        self.failure: WorkerDied | None = None
        self.dropped = False

    def done(self) -> bool:
        if self.made is None and self.failure is None:
            self._crew.listen(0.0)
        return self.made is not None or self.failure is not None

    def result(self, timeout: float) -> Outcome:
        """Raises ``TimeoutError``, or `WorkerDied`."""
        deadline = time.monotonic() + timeout
        while self.made is None:
            if self.failure is not None:
                raise self.failure
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._crew.listen(left)
        return self._crew.fetched(self, *self.made)

    def drop(self) -> None:
        """Nobody wants it any more."""
        if not self.dropped:
            self.dropped = True
            self._crew.dropped(self)


class Crew:
    """``kit.workers`` processes that make batches. Belongs to the process that made it, and ends with it.

    Raises `BadArgument` for a kit that cannot be sent to processes, `UsageError` inside of a worker.
    """

    def __init__(self, kit: Kit) -> None:
        if os.environ.get(INSIDE):
            reason = "a worker process imported the script that defines its transform, and the script began to loop"
            raise UsageError(reason, 'put what the script runs under `if __name__ == "__main__":`')
        self._pids: dict[int, int] = {}
        self._asked: list[deque[Order]] = [deque() for _ in range(kit.workers)]
        self._heard = [b""] * kit.workers
        self._number = 0
        self._idle: list[Slab] = []
        self._lent: set[int] = set()
        """Descriptors of slabs that are in use here, and come back."""
        self.failure: WorkerDied | None = None
        self._floor = Slab()
        os.ftruncate(self._floor.descriptor, 8)
        self._lines, self._control, self._nursery = _started(packed(kit), self._floor, kit.workers)
        self._end = weakref.finalize(self, _ended, os.getpid(), (*self._lines, self._control), self._nursery, END)
        _crews.add(self)

    @property
    def closed(self) -> bool:
        return not self._end.alive

    @property
    def workers(self) -> int:
        return len(self._lines)

    def ask(self, worker: int, epoch: int, position: int, between: int) -> Order:
        """Have the batch at ``position`` made by that worker, after what it was asked for before.

        ``between``: samples of batches that others make until the next of that worker.
        """
        order = Order(self, self._number, self._idle.pop() if self._idle else Slab())
        self._number += 1
        self._asked[worker].append(order)
        try:
            message = ASKED.pack(order.number, epoch, position, between)
            socket.send_fds(self._lines[worker], [message], [order.slab.descriptor])
        except OSError:
            self._died(worker)
        return order

    def pass_over(self) -> None:
        """Of all that was asked for so far, what has not begun will not be made."""
        if not self.closed:
            os.pwrite(self._floor.descriptor, self._number.to_bytes(8, "little"), 0)

    def listen(self, patience: float) -> None:
        """Take note of what workers have made, waiting at most so long for one. A death is noted on all orders."""
        poll = select.poll()
        if self.closed:
            return
        lines = {line.fileno(): worker for worker, line in enumerate(self._lines) if self._asked[worker]}
        for descriptor in lines:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(patience * 1000):
            self._hear(lines[descriptor])

    def fetched(self, order: Order, start: int, end: int) -> Outcome:
        """What a worker wrote; the slab is used again once none of it is in use here."""
        memory = order.slab
        if len(self._lent) + len(self._idle) < KEPT:
            self._lent.add(memory.descriptor)
            released: Callable[[], None] = partial(_give_back, weakref.ref(self), memory)
        else:
            released = _nothing
        outcome: Outcome = slab.read(memory.descriptor, start, end, released)
        del order.slab
        return outcome

    def dropped(self, order: Order) -> None:
        if order.made is not None and hasattr(order, "slab"):
            self.reuse(order.slab)
            del order.slab

    def reuse(self, memory: Slab) -> None:
        """Of a slab that nobody reads or writes."""
        self._lent.discard(memory.descriptor)
        if self._end.alive and len(self._idle) < KEPT:
            self._idle.append(memory)

    def close(self, patience: float = 0.0) -> None:
        """End the workers; one that is in the middle of a batch has a second to finish it."""
        self.pass_over()
        if self._end.detach() is not None:
            _ended(os.getpid(), (*self._lines, self._control), self._nursery, max(patience, END))
        self._idle.clear()

    def kill(self, failure: WorkerDied) -> None:
        """End the workers at once."""
        self.failure = self.failure or failure
        self._nursery.kill()  # the kernel ends its children with it
        self.close()

    def abandon(self) -> None:
        """In a forked child: the parent's workers must not wait for this process to end, too."""
        self._end.detach()
        for end in (*self._lines, self._control):
            end.close()
        self._idle.clear()

    def _hear(self, worker: int) -> None:
        try:
            data = self._lines[worker].recv(MADE.size - len(self._heard[worker]))
        except OSError:
            data = b""
        if not data:
            self._died(worker)
            return
        self._heard[worker] += data
        if len(self._heard[worker]) < MADE.size:
            return
        _, start, end = MADE.unpack(self._heard[worker])
        self._heard[worker] = b""
        order = self._asked[worker].popleft()
        order.made = start, end
        if order.dropped:
            self.dropped(order)

    def _died(self, worker: int) -> None:
        if self.failure is None:
            self.failure = self._told(worker)
        for orders in self._asked:
            for order in orders:
                order.failure = self.failure
            orders.clear()

    def _told(self, worker: int) -> WorkerDied:
        """How the worker ended, by its parent's report, or how its parent did."""
        deadline = time.monotonic() + REPORT
        while (left := deadline - time.monotonic()) > 0:
            self._control.settimeout(left)
            try:
                report = self._control.recv(BORN.size, socket.MSG_WAITALL)
            except OSError:
                break
            if len(report) < BORN.size:
                with suppress(subprocess.TimeoutExpired):
                    return WorkerDied.ended(MAKING, self._nursery.pid, self._nursery.wait(left))
                break
            number, pid, status = BORN.unpack(report)
            self._pids[number] = pid
            if status >= 0 and number == worker:
                return WorkerDied.ended(MAKING, pid, os.waitstatus_to_exitcode(status))
        return WorkerDied(MAKING, f"process {self._pids.get(worker, 'of a worker')} is gone")


def _started(
    kit: bytes, floor: Slab, workers: int
) -> tuple[list[socket.socket], socket.socket, subprocess.Popen[bytes]]:
    """A line to each worker, one to their nursery, and its process."""
    pairs = [socket.socketpair() for _ in range(workers + 1)]
    file = Slab()
    try:
        with open(file.descriptor, "wb", closefd=False) as out:
            out.write(kit)
        theirs = [pair[1].fileno() for pair in pairs]
        descriptors = (theirs[-1], file.descriptor, floor.descriptor, *theirs[:-1])
        environment = {**dict.fromkeys(THREADS, "1"), **os.environ, INSIDE: "1"}
        nursery = subprocess.Popen(
            [sys.executable, "-c", _CODE.format(path=sys.path, descriptors=descriptors)],
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            env=environment,
            start_new_session=True,  # Ctrl-C is the caller's
        )
    finally:
        for _, end in pairs:
            end.close()
    return [pair[0] for pair in pairs[:-1]], pairs[-1][0], nursery


def _ended(process: int, ends: tuple[socket.socket, ...], nursery: subprocess.Popen[bytes], patience: float) -> None:
    if process != os.getpid():
        return
    for end in ends:
        end.close()
    try:
        nursery.wait(patience)
    except subprocess.TimeoutExpired:
        nursery.kill()
        nursery.wait()


def _give_back(crew: weakref.ref[Crew], memory: Slab) -> None:
    found = crew()
    if found is not None:
        found.reuse(memory)


def _nothing() -> None:
    """A slab whose descriptor is closed once it is mapped goes with its mapping."""


def _after_fork() -> None:
    for crew in list(_crews):
        crew.abandon()


os.register_at_fork(after_in_child=_after_fork)
