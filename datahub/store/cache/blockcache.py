"""`BlockCache`: verified blocks on a local disk, bounded in bytes, shared by every process of a machine.

A block is fetched once however many threads and processes wait for it, its bytes are reserved before they arrive, and
nobody sees it before its digest is right. Killing any process at any moment leaves at most a reservation and an
unfinished file, which the next one that needs the block or the room takes back. What the cache cannot do (disk full,
folder read-only, everything in use) it does not pretend to: the bytes are fetched and handed through.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from datahub.core.errors import OriginStalled, VerificationError
from datahub.core.events import Listener, Note, ignore
from datahub.core.processes import identity
from datahub.store.cache import books
from datahub.store.cache.block import Block, Data, Fetch, wrong
from datahub.store.cache.files import BlockFiles, Opened, Seen, networked
from datahub.store.cache.foreseen import Foreseen
from datahub.store.cache.ledger import Ledger
from datahub.store.cache.notes import Notes
from datahub.store.cache.trust import Trust

STAGE = "cache"
POLL, POLL_MOST = 0.005, 0.05
"""Seconds between two looks at a block that another process is fetching, at first and later."""
AGAIN = 30.0
"""Seconds without caching after the disk refused, or without looking for idle datasets, until it is tried again."""
TRIES = 3
"""Times a block is fetched whose bytes are wrong."""


@dataclass(frozen=True, slots=True)
class Usage:
    """``bytes`` of whole and reserved blocks, never above the limit."""

    bytes: int
    blocks: int
    filling: int


class Answer(Enum):
    GRANTED = "fill it"
    WHOLE = "it is there"
    BUSY = "somebody fills it"
    REFUSED = "there is no room"


class BlockCache:
    """Blocks in ``folder``, of ``limit`` bytes together (None: what the disk has, less a reserve).

    Safe in threads, after fork, and beside other processes with the same folder. Picklable. On a network file system
    each machine gets a folder of its own. ``lru``: least recently used blocks go first, see `policy`.
    """

    def __init__(
        self, folder: Path, limit: int | None = None, *, lru: bool = False, listener: Listener = ignore
    ) -> None:
        self.folder, self.limit, self.lru, self._listener = folder, limit, lru, listener
        self._here = folder / socket.gethostname() if networked(folder) else folder
        self._files, self._ledger = BlockFiles(self._here), Ledger(self._here)
        self.foreseen = Foreseen(self._here)
        self._told = False
        self._begin()

    def _begin(self) -> None:
        self._process, self._token = os.getpid(), secrets.token_hex(4)
        self._owner = f"{identity()}#{self._token}"
        self._changing = books.Transactions(self._here, self._files, self._ledger)
        self._trust = Trust(self._files, self._ledger, self._changing)
        self._notes = Notes(self._ledger, self._owner, self._changing)
        self._off_until = self._crowded_until = 0.0

    def _here_again(self) -> None:
        """After a fork: locks, wants and the owner's name are the parent's."""
        if self._process != os.getpid():
            self._begin()

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, block: Block, ranges: Sequence[tuple[int, int]] | None = None) -> list[bytes] | None:
        """Ranges ``[start, end)`` of a block (default: all of it) if it is here whole, else None. Never waits.

        A file that is not what was verified is verified again, and removed where it is damaged.
        """
        self._here_again()
        try:
            with self._files.reading(block.key) as opened:
                if opened is None:
                    return None
                trusted = self._trust.has(block, opened)
                data = [opened.read(*each) for each in ranges or [(0, block.size)]] if trusted else []
        except OSError:
            return None
        if not trusted:
            self._trust.drop(block)
            return None
        self._notes.read(block)
        return data

    def lend(self, block: Block) -> Opened | None:
        """The verified block's file, open; no process evicts it before the caller closes the descriptor.

        What is done with it is not on the books until `used` says so. Waits for nobody.
        """
        self._here_again()
        try:
            with self._files.reading(block.key) as opened:
                if opened is None:
                    return None
                if self._trust.has(block, opened):
                    return replace(opened, descriptor=os.dup(opened.descriptor))
        except OSError:
            return None
        self._trust.drop(block)
        return None

    def used(self, blocks: Iterable[Block]) -> None:
        """Blocks that were just read in another way than by `read`."""
        self._here_again()
        for block in blocks:
            self._notes.read(block)

    def has(self, block: Block) -> bool:
        return self._files.size(block.key) == block.size

    def used_at(self, keys: Collection[str]) -> dict[str, float]:
        """When each block was used last, of those that are whole. Raises ``sqlite3.Error`` or ``OSError``."""
        self._here_again()
        with self._changing():
            return self._ledger.used_at(keys)

    def present(self, keys: Iterable[str]) -> list[bool]:
        """Of each block, whether it is here: a look at the disk, not at the books."""
        return [self._files.there(key) for key in keys]

    def fill(
        self, block: Block, fetch: Fetch, *, seconds: float, evict: bool = True, through: bool = True
    ) -> Data | None:
        """The whole block: from here, from whoever is fetching it, or through ``fetch``, which is then kept.

        ``evict``: whether others of datasets in use may go for it. Where there is no room its bytes are handed through;
        not with ``through=False``, which gives None then and fetches nothing. Raises what ``fetch`` does,
        `DigestMismatch` where its bytes stay wrong, `OriginStalled` after ``seconds``.
        """
        self._here_again()
        deadline, pause = time.monotonic() + seconds, POLL
        while True:
            answer = self._ask(block, evict, deadline)
            if answer is Answer.WHOLE:
                if (found := self.read(block)) is not None:
                    return found[0]
            elif answer is Answer.GRANTED:
                return self._fill(block, fetch, deadline)
            elif answer is Answer.REFUSED:
                return self._fetched(block, fetch, deadline) if through else None
            if time.monotonic() >= deadline:
                raise OriginStalled(block.name, seconds, "another process is fetching it")
            time.sleep(pause)
            pause = min(2 * pause, POLL_MOST)

    # -- what is wanted -------------------------------------------------------------------------------------------

    def want(self, keys: Collection[str]) -> None:
        """Blocks that will be read soon: no process evicts them before this one says otherwise, or ends."""
        self._here_again()
        self._notes.want(keys)

    def unwant(self, keys: Collection[str] | None = None) -> None:
        """What is not wanted any more; None: nothing is."""
        self._here_again()
        self._notes.unwant(keys)

    # -- the rest -------------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Raises ``sqlite3.Error`` or ``OSError`` where the books cannot be read."""
        self._here_again()
        with self._changing():
            return Usage(self._ledger.total(), *self._ledger.count())

    @contextmanager
    def books(self) -> Iterator[tuple[Ledger, BlockFiles, int]]:
        """The books in a transaction, the files, and how many bytes there may be; for `Holdings`.

        Raises ``sqlite3.Error`` or ``OSError`` where the books cannot be written.
        """
        self._here_again()
        with self._changing():
            yield self._ledger, self._files, books.room(self._here, self._ledger, self.limit)

    def drop(self, block: Block) -> None:
        """Take a block away whose file was found damaged, whoever is reading it."""
        self._here_again()
        self._trust.drop(block)

    def close(self) -> None:
        """Put what was read on the books and let go of them; a later call opens them again."""
        self._here_again()
        if self._changing.begun:
            self._notes.flush()
            self._notes.unwant(None)
        self._ledger.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(BlockCache, lru=self.lru), (self.folder, self.limit)

    # -- filling --------------------------------------------------------------------------------------------------

    def _ask(self, block: Block, evict: bool, deadline: float) -> Answer:
        if time.monotonic() < self._off_until:
            return Answer.REFUSED
        try:
            with self._changing():
                return self._answer(block, evict, time.time() + deadline - time.monotonic() + 1.0)
        except (sqlite3.Error, OSError) as error:
            self._refused(error)
            return Answer.REFUSED

    def _answer(self, block: Block, evict: bool, until: float) -> Answer:
        now = time.time()
        row = self._ledger.row(block.key)
        if row is not None and row.owner is None and self._files.size(block.key) == block.size:
            return Answer.WHOLE
        if row is not None and row.owner is not None:
            if not row.abandoned(now):
                return Answer.BUSY
            self._files.discard(block.key, row.owner.rpartition("#")[2])
        elif row is None and not self._room(block.size, evict, now):
            return Answer.REFUSED
        self._ledger.reserve(block.key, block.size, block.tag, self._owner, now, until)
        return Answer.GRANTED

    def _room(self, size: int, evict: bool, now: float) -> bool:
        """`make_room`; that no dataset is idle is remembered for a while, since all blocks are looked at to see it."""
        ledger, limit = self._ledger, books.room(self._here, self._ledger, self.limit)
        if not evict and time.monotonic() < self._crowded_until:
            return ledger.total() + size <= limit
        made = books.make_room(
            ledger, self._files, size, limit, now, evict=evict, lru=self.lru, due=self.foreseen.due
        )  # fmt: skip
        if not made and not evict:
            self._crowded_until = time.monotonic() + AGAIN
        return made

    def _fill(self, block: Block, fetch: Fetch, deadline: float) -> Data:
        kept = False
        try:
            data = self._fetched(block, fetch, deadline)
            try:
                seen = self._files.write(block.key, self._token, data)
                kept = self._publish(block, seen)
            except (sqlite3.Error, OSError) as error:
                self._refused(error)
            return data
        finally:
            if not kept:
                self._abandon(block)

    def _publish(self, block: Block, seen: Seen) -> bool:
        """Show a written block to everybody, unless somebody thought this fill dead and took it over."""
        with self._changing():
            row = self._ledger.row(block.key)
            if row is None or row.owner != self._owner:
                return False
            self._files.publish(block.key, self._token)
            self._trust.enter(block.key, seen)
        self._trust.remember(block.key, seen)
        return True

    def _abandon(self, block: Block) -> None:
        self._files.discard(block.key, self._token)
        with suppress(sqlite3.Error, OSError), self._changing():
            row = self._ledger.row(block.key)
            if row is not None and row.owner == self._owner:
                self._ledger.remove(block.key)

    def _fetched(self, block: Block, fetch: Fetch, deadline: float) -> Data:
        """The block's bytes, right; fetched again where they are not."""
        error: VerificationError | None = None
        for _ in range(TRIES):
            data = fetch(max(0.001, deadline - time.monotonic()))
            error = wrong(block, data)
            if error is None:
                return data
        assert error is not None
        raise error

    def _refused(self, error: Exception) -> None:
        self._off_until = time.monotonic() + AGAIN
        if not self._told:
            self._told = True
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            message = f"{self._here} cannot be written ({reason}); blocks are read from their origin and not kept"
            self._listener(Note(STAGE, message, warning=True))
