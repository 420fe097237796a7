"""A worker process: makes the batches it is asked for, one after the other, until nobody asks any more."""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
import traceback
from dataclasses import dataclass, field
from typing import Any

import cv2
import torch

from datahub.core.errors import DamagedSample, DatahubError
from datahub.loader.assemble import Assembler
from datahub.loader.counters import Counters, Spent
from datahub.loader.process import slab
from datahub.loader.process.kit import Kit, unpacked
from datahub.loader.readahead import ReadAhead
from datahub.loader.recipe import Supplies
from datahub.loader.schedule import Schedule
from datahub.tensor.transforms import BatchTransform

ASKED = struct.Struct("=qqqq")
"""Number of the job, epoch, position, and samples of other workers' batches until this one's next; the slab's
descriptor comes with it."""
MADE = struct.Struct("=qqq")
"""Number of the job, where the pickle begins and ends in the slab; 0 to 0 for a job nobody wants any more."""


@dataclass
class Outcome:
    """A batch or the error in its place, and what was counted and set aside on the way: (row, damage)."""

    batch: Any = None
    error: BaseException | None = None
    spent: Spent | None = None
    aside: list[tuple[int, DamagedSample]] = field(default_factory=list)


class Aside:
    """Takes the place of a `Quarantine`: the caller's process keeps the record, for all workers."""

    def __init__(self) -> None:
        self.found: list[tuple[int, DamagedSample]] = []

    def add(self, row: int, damage: DamagedSample) -> None:
        self.found.append((row, damage))


def work(line: socket.socket, kit: bytes, floor: mmap.mmap) -> None:
    """Serve ``line`` to its end. Jobs numbered below what ``floor`` holds are passed over."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    bench = _Bench(kit)
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(line, ASKED.size, 1)
        except ConnectionResetError:
            return  # the caller left with something unread
        if len(message) < ASKED.size or not descriptors:
            return
        job, *where = ASKED.unpack(message)
        try:
            wanted = job >= int.from_bytes(floor[:8], "little")
            start, end = bench.make(descriptors[0], *where) if wanted else (0, 0)
        finally:
            os.close(descriptors[0])
        try:
            line.sendall(MADE.pack(job, start, end))
        except OSError:
            return  # the caller is gone


class _Bench:
    def __init__(self, kit: bytes) -> None:
        self._packed = kit
        self._tools: _Tools | None = None

    def make(self, descriptor: int, epoch: int, position: int, between: int) -> tuple[int, int]:
        filling = slab.Filling(descriptor)
        try:
            if self._tools is None:
                self._tools = _Tools(unpacked(self._packed))
            outcome = self._tools.make(filling, epoch, position, between)
        except BaseException as error:  # noqa: BLE001 - it is raised where the batch is waited for
            outcome = Outcome(error=_sendable(error))
        try:
            return filling.write(outcome)
        except Exception as error:  # noqa: BLE001
            reason = f"a batch cannot be sent to another process: {error}"
            failed = DatahubError(reason, 'let transforms return tensors, or use workers="thread"')
            return filling.write(Outcome(error=failed))


class _Tools:
    def __init__(self, kit: Kit) -> None:
        self._schedule = Schedule(kit.plan)
        self._counters, self._aside = Counters(), Aside() if kit.quarantine else None
        recipe = kit.recipe
        self._assembler = Assembler(Supplies(kit.split, kit.source, recipe, self._counters, kit.seed, self._aside))
        if kit.resident is not None:
            self._assembler.reside(kit.resident.open())
        own = recipe.transform is None or isinstance(recipe.transform, BatchTransform)
        self._in_place = own and recipe.batch_transform is None and recipe.collate is None and recipe.map is None
        self._ahead: ReadAhead | None = None
        self._next = (-1, -1, -1)

    def make(self, filling: slab.Filling, epoch: int, position: int, between: int) -> Outcome:
        self._announce(epoch, position, between)
        # The caller's functions may keep what they are given, and a slab is used again.
        self._assembler.into(filling.empty if self._in_place else None)
        outcome = Outcome()
        try:
            outcome.batch = self._assembler.make(self._schedule.step(epoch, position, between))
        except BaseException as error:  # noqa: BLE001 - as above
            outcome.error = _sendable(error)
        finally:
            self._assembler.into(None)
        outcome.spent = self._counters.spent()
        if self._aside is not None:
            outcome.aside, self._aside.found = self._aside.found, []
        return outcome

    def _announce(self, epoch: int, position: int, between: int) -> None:
        """Tell the source what this worker is going to read, as long as its batches come in equal steps."""
        if self._ahead is None or (epoch, position, between) != self._next:
            if self._ahead is not None:
                self._ahead.end()
            self._ahead = ReadAhead(self._schedule, self._assembler.announce, epoch, between=between)
        self._ahead.go(position)
        self._next = epoch, position + self._schedule.plan.batch + between, between


def _sendable(error: BaseException) -> BaseException:
    """``error`` with where it was raised, as something that another process can make anew."""
    if not isinstance(error, DatahubError):
        lines = "".join(traceback.format_exception(error))
        error.add_note(f"in worker process {os.getpid()}:\n{lines.rstrip()}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, to see whether it can be done
    except Exception:  # noqa: BLE001
        made = RuntimeError(f"{type(error).__name__}: {error}")
        made.__notes__ = list(getattr(error, "__notes__", []))
        return made
    return error
