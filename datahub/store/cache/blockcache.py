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
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from datahub.core.errors import OriginStalled, VerificationError
from datahub.core.events import Listener, Note, ignore
from datahub.core.processes import boot, identity
from datahub.store.cache import books
from datahub.store.cache.block import Block, Data, Fetch, wrong
from datahub.store.cache.files import BlockFiles, Opened, Seen, networked
from datahub.store.cache.ledger import Ledger, Row

STAGE = "cache"
POLL, POLL_MOST = 0.005, 0.05
"""Seconds between two looks at a block that another process is fetching, at first and later."""
NOTED = 5.0
"""Seconds after which what was read is put on the books."""
AGAIN = 30.0
"""Seconds without caching after the disk refused, until it is tried again."""
WANT = 600.0
"""Seconds after which what a process wants is forgotten, unless it lives and says it again."""
TRIES = 3
"""Times a block is fetched whose bytes are wrong."""
REMEMBERED = 1 << 16
"""Blocks that a process knows to be verified without asking the books."""


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
        self._told = False
        self._begin()

    def _begin(self) -> None:
        self._process, self._lock = os.getpid(), threading.Lock()
        self._token = secrets.token_hex(4)
        self._owner = f"{identity()}#{self._token}"
        self._boot = boot()
        self._verified: dict[str, Seen] = {}
        self._read: dict[str, tuple[float, str]] = {}
        self._wanted: set[str] = set()
        self._noted = self._renewed = time.monotonic()
        self._off_until = 0.0
        self._prepared = False

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
                trusted = self._trusted(block, opened)
                data = [opened.read(*each) for each in ranges or [(0, block.size)]] if trusted else []
        except OSError:
            return None
        if not trusted:
            self._drop(block)
            return None
        self._note(block)
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
                if self._trusted(block, opened):
                    return replace(opened, descriptor=os.dup(opened.descriptor))
        except OSError:
            return None
        self._drop(block)
        return None

    def used(self, blocks: Iterable[Block]) -> None:
        """Blocks that were just read in another way than by `read`."""
        self._here_again()
        for block in blocks:
            self._note(block)

    def has(self, block: Block) -> bool:
        return self._files.size(block.key) == block.size

    def fill(
        self, block: Block, fetch: Fetch, *, seconds: float, evict: bool = True, through: bool = True
    ) -> Data | None:
        """The whole block: from here, from whoever is fetching it, or through ``fetch``, which is then kept.

        ``evict``: whether other blocks may go for it. Where there is no room its bytes are handed through; not with
        ``through=False``, which gives None then and fetches nothing. Raises what ``fetch`` does, `DigestMismatch` where
        its bytes stay wrong, `OriginStalled` after ``seconds``.
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
        with self._lock:
            self._wanted.update(keys)
        self._bookkeep(lambda: self._ledger.want(keys, self._owner, time.time() + WANT))

    def unwant(self, keys: Collection[str] | None = None) -> None:
        """What is not wanted any more; None: nothing is."""
        self._here_again()
        with self._lock:
            self._wanted.difference_update(self._wanted.copy() if keys is None else keys)
        if keys is None:
            self._bookkeep(lambda: self._ledger.forget(self._owner))
        else:
            self._bookkeep(lambda: self._ledger.unwant(keys, self._owner))

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
        self._drop(block)

    def close(self) -> None:
        """Put what was read on the books and let go of them; a later call opens them again."""
        self._here_again()
        if self._prepared:
            self._flush()
            self.unwant()
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
        elif row is None and not books.make_room(
            self._ledger,
            self._files,
            block.size,
            books.room(self._here, self._ledger, self.limit),
            now,
            evict=evict,
            lru=self.lru,
        ):
            return Answer.REFUSED
        self._ledger.reserve(block.key, block.size, block.tag, self._owner, now, until)
        return Answer.GRANTED

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
            self._ledger.whole(block.key, time.time(), seen.inode, seen.mtime, self._boot)
        self._remember(block.key, seen)
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

    # -- trust ----------------------------------------------------------------------------------------------------

    def _trusted(self, block: Block, opened: Opened) -> bool:
        """Whether the file is the one that was verified, or is right when it is verified again.

        A crash of the machine may take data that a finished rename had named: what another boot wrote is looked at.
        """
        if opened.size != block.size:
            return False
        if self._verified.get(block.key) == opened.seen:
            return True
        row: Row | None = None
        with suppress(sqlite3.Error, OSError), self._changing():
            row = self._ledger.row(block.key)
        vouched = row is not None and (row.inode, row.mtime, row.boot) == (*_pair(opened.seen), self._boot)
        if not vouched:
            if block.sha256 is None or wrong(block, opened.read(0, block.size)) is not None:
                return False
            self._vouch(block, opened.seen)
        self._remember(block.key, opened.seen)
        return True

    def _vouch(self, block: Block, seen: Seen) -> None:
        with suppress(sqlite3.Error, OSError), self._changing():
            row = self._ledger.row(block.key)
            if row is not None and row.owner is None:
                self._ledger.whole(block.key, time.time(), seen.inode, seen.mtime, self._boot)

    def _drop(self, block: Block) -> None:
        """Take a damaged block away."""
        self._verified.pop(block.key, None)
        with suppress(sqlite3.Error, OSError), self._changing():
            row = self._ledger.row(block.key)
            if row is not None and row.owner is None:
                self._files.remove(block.key, though_read=True)
                self._ledger.remove(block.key)

    def _remember(self, key: str, seen: Seen) -> None:
        if len(self._verified) >= REMEMBERED:
            self._verified.clear()
        self._verified[key] = seen

    # -- the books ------------------------------------------------------------------------------------------------

    def _changing(self) -> AbstractContextManager[None]:
        if not self._prepared:
            books.prepare(self._here, self._files, self._ledger)
            self._prepared = True
        return self._ledger.changing()

    def _note(self, block: Block) -> None:
        with self._lock:
            self._read[block.key] = (time.time(), block.tag)
            due = time.monotonic() - self._noted > NOTED
            if due:
                self._noted = time.monotonic()
        if due:
            self._flush()

    def _flush(self) -> None:
        """Put on the books what was read lately, and say again what is wanted."""
        with self._lock:
            read, self._read = self._read, {}
            again = time.monotonic() - self._renewed > WANT / 3
            wanted = set(self._wanted) if again else set()
            if again:
                self._renewed = time.monotonic()

        def change() -> None:
            self._ledger.used(read)
            self._ledger.want(wanted, self._owner, time.time() + WANT)

        self._bookkeep(change)

    def _bookkeep(self, change: Callable[[], None]) -> None:
        """A transaction whose failure costs nothing but precision."""
        with suppress(sqlite3.Error, OSError), self._changing():
            change()

    def _refused(self, error: Exception) -> None:
        self._off_until = time.monotonic() + AGAIN
        if not self._told:
            self._told = True
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            message = f"{self._here} cannot be written ({reason}); blocks are read from their origin and not kept"
            self._listener(Note(STAGE, message, warning=True))


def _pair(seen: Seen) -> tuple[int, int]:
    return seen.inode, seen.mtime
