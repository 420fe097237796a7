"""Keeping a cache's books and its files in step: making room, and mending what a lost or damaged ledger left."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from datahub.core.locks import FileLock
from datahub.store.cache.files import BlockFiles
from datahub.store.cache.ledger import NAME, Ledger
from datahub.store.cache.policy import Entry, dispensable, idle, to_free

FREE = 1 << 30
"""Bytes that a cache without a limit leaves free on the disk, or a twentieth of the disk if that is less."""
ADOPTED = "adopted"
"""The tag of blocks found without books."""


class Transactions:
    """Changes of a cache's books, which are made ready before the first one. Each process has its own."""

    def __init__(self, folder: Path, files: BlockFiles, ledger: Ledger) -> None:
        self._folder, self._files, self._ledger = folder, files, ledger
        self.begun = False

    def __call__(self) -> AbstractContextManager[None]:
        """Raises ``OSError`` or ``sqlite3.Error`` where the books cannot be written."""
        if not self.begun:
            prepare(self._folder, self._files, self._ledger)
            self.begun = True
        return self._ledger.changing()


def room(folder: Path, ledger: Ledger, limit: int | None) -> int:
    """How many bytes the cache may hold now: its limit, and never more than the disk has."""
    disk = shutil.disk_usage(folder)
    most = ledger.total() + disk.free
    return min(limit, most) if limit is not None else most - min(FREE, disk.total // 20)


def make_room(
    ledger: Ledger,
    files: BlockFiles,
    size: int,
    limit: int,
    now: float,
    *,
    evict: bool,
    lru: bool = False,
    due: Callable[[], Mapping[str, float]] = dict,
) -> bool:
    """Whether ``size`` more bytes fit, after evicting what may go if need be; inside a transaction.

    Where they would not fit even then nothing is evicted. Without ``evict`` only blocks of datasets that nobody reads
    any more may go. ``due`` is asked only where something has to go.
    """
    total = ledger.total()
    if total + size <= limit:
        return True
    for row in ledger.filling():
        if row.owner is not None and row.abandoned(now):
            files.discard(row.key, row.owner.rpartition("#")[2])
            ledger.remove(row.key)
            total -= row.bytes
    goal = to_free(size, total, limit)
    if goal == 0:
        return True
    entries = ledger.entries() if evict else idle(ledger.entries(), now)
    free = dispensable(entries, ledger.wanted(now), now, held=ledger.held(now), lru=lru, due=due())
    if total + size - sum(entry.bytes for entry in free) > limit:
        return False
    return total + size - remove(ledger, files, free, goal) <= limit


def remove(ledger: Ledger, files: BlockFiles, entries: Iterable[Entry], goal: int) -> int:
    """Evict, in this order, until ``goal`` bytes are free; what is being read stays. The bytes that went."""
    freed = 0
    for entry in entries:
        if freed >= goal:
            break
        if files.remove(entry.key):
            ledger.remove(entry.key)
            freed += entry.bytes
    return freed


def prepare(folder: Path, files: BlockFiles, ledger: Ledger) -> None:
    """Make the folder and the books ready; raises ``OSError`` or ``sqlite3.Error`` where that cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _reconcile(files, ledger)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        _mend(folder, ledger)
        _reconcile(files, ledger)


def _reconcile(files: BlockFiles, ledger: Ledger) -> None:
    """Remove drafts that no fill on the books owns, and enter blocks whose books were lost.

    These are verified again when they are first read: nothing is on the books that vouches for them.
    """
    with ledger.changing():
        filling = {(row.key, row.owner.rpartition("#")[2]) for row in ledger.filling() if row.owner is not None}
        for draft in set(files.drafts()) - filling:
            files.discard(*draft)
        if ledger.count() == (0, 0):
            now = time.time()
            for key, size in files.all():
                ledger.reserve(key, size, ADOPTED, "", now, now)
                ledger.whole(key, now, 0, 0, "")


def _mend(folder: Path, ledger: Ledger) -> None:
    """Take away books that SQLite cannot read; one process does it."""
    ledger.close()
    with FileLock(folder / "mending.lock", timeout=60):
        try:
            with ledger.changing():
                return  # another process was first
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            ledger.close()
            for suffix in ("", "-wal", "-shm"):
                (folder / f"{NAME}{suffix}").unlink(missing_ok=True)
