"""Samples that cannot be read or decoded, set aside: what is recorded of them, and what stands in their rows.

A damaged sample keeps its place: its row comes as ``valid=False`` with a black image, so that the order of all others
is the same whether anybody could read it or not. The record is a report and decides nothing: every run tries every
sample, so a repaired shard comes back whole, and a run without the record gives the same batches as one with it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from numpy.typing import NDArray

from datahub.core.atomic import make_dir
from datahub.core.errors import DamagedSample, NotWritable, Problem, StoreDamaged, from_oserror
from datahub.store.dataset import Split
from datahub.store.paths import derived_dir

CAUSE = 400
"""Characters kept of a cause: a line stays short enough to be appended in one write."""
LARGEST = 1 << 24
"""Pixels of the largest black image; damaged headers may promise any."""
UNKNOWN = 64
"""Side of the black image where the index does not know the sample's size."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a quarantine file: row of the split, shard, key, byte offset, and what was wrong."""

    row: int
    shard: str
    key: str
    offset: int
    cause: str


class SetsAside(Protocol):
    """Takes a damaged sample and its row, as `Quarantine` does."""

    def add(self, row: int, damage: DamagedSample) -> None: ...


class Quarantine:
    """Records damaged samples of a split in one file a process. Safe in threads, after fork and through pickle.

    A sample is written once, however often it is met, and not at all if an earlier run wrote it. Where more than half
    of the split is damaged, `add` raises `StoreDamaged`: that is no set with damaged samples.
    """

    def __init__(self, folder: Path, ref: str, samples: int) -> None:
        self.folder = folder
        self._ref, self._samples = ref, samples
        self._process, self._lock = os.getpid(), threading.Lock()
        self._met: set[int] = set()
        self._recorded: set[int] | None = None

    @classmethod
    def of(cls, split: Split, home: Path) -> Quarantine:
        """The quarantine of ``split`` under ``home``; raises `NotWritable` where it could not be written."""
        folder = derived_dir(home, split.fingerprint) / "quarantine"
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        if not os.access(existing, os.W_OK | os.X_OK):
            raise NotWritable(str(existing), "on_error='quarantine' records damaged samples there")
        return cls(folder, str(split.dataset.ref), len(split))

    def add(self, row: int, damage: DamagedSample) -> None:
        """Set the sample in ``row`` aside. Raises `StoreDamaged`, `DiskFull` or `NotWritable`."""
        if self._process != os.getpid():
            # A thread may have held the lock while this process was forked, and the file is another's.
            self._process, self._lock, self._recorded = os.getpid(), threading.Lock(), None
        with self._lock:
            if row in self._met:
                return
            if self._recorded is None:
                self._recorded = {entry.row for entry in recorded(self.folder)}
            if row not in self._recorded:
                cause = damage.cause[:CAUSE]
                self._append(Entry(row, damage.shard, damage.key, damage.offset, cause))
                self._recorded.add(row)
            self._met.add(row)
            met = len(self._met)
        if 2 * met > self._samples:
            reason = f"{met} of {self._samples} samples cannot be read or decoded, see {self.folder}"
            raise StoreDamaged(self._ref, [Problem("quarantine", reason)])

    def _append(self, entry: Entry) -> None:
        path = make_dir(self.folder) / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        line = json.dumps(asdict(entry)).encode() + b"\n"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                end = os.fstat(descriptor).st_size
                torn = end and os.pread(descriptor, 1, end - 1) != b"\n"
                os.write(descriptor, b"\n" + line if torn else line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise from_oserror(error, path, writing=True) from error

    def __reduce__(self) -> tuple[type[Quarantine], tuple[Path, str, int]]:
        return Quarantine, (self.folder, self._ref, self._samples)


def recorded(folder: Path) -> Iterator[Entry]:
    """What all processes wrote so far; a line cut short by a kill is passed over."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise from_oserror(error, path, writing=False) from error
        for line in lines:
            try:
                yield msgspec.json.decode(line, type=Entry)
            except msgspec.DecodeError:
                continue


def filler(place: NDArray[Any], channels: int) -> torch.Tensor:
    """A black image of the size that the sample's locate row ``place`` says, uint8 ``(C, H, W)``."""
    height, width = int(place["height"]), int(place["width"])
    if not 0 < height * width <= LARGEST:
        height = width = UNKNOWN
    return torch.zeros((channels, height, width), dtype=torch.uint8)
