"""What a process has read of a cache and will want of it, put on the books now and then."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress

from datahub.store.cache.block import Block
from datahub.store.cache.ledger import Ledger

NOTED = 5.0
"""Seconds after which what was read is put on the books."""
WANT = 600.0
"""Seconds after which what a process wants is forgotten, unless it lives and says it again."""


class Notes:
    """Safe in threads; a process of its own after a fork. Where the books fail nothing is lost but precision.

    ``owner``: whose wants they are; ``changing``: a transaction of the books.
    """

    def __init__(self, ledger: Ledger, owner: str, changing: Callable[[], AbstractContextManager[None]]) -> None:
        self._ledger, self._owner, self._changing = ledger, owner, changing
        self._lock = threading.Lock()
        self._read: dict[str, tuple[float, str]] = {}
        self._wanted: set[str] = set()
        self._noted = self._renewed = time.monotonic()

    def read(self, block: Block) -> None:
        with self._lock:
            self._read[block.key] = (time.time(), block.tag)
            due = time.monotonic() - self._noted > NOTED
            if due:
                self._noted = time.monotonic()
        if due:
            self.flush()

    def want(self, keys: Collection[str]) -> None:
        with self._lock:
            self._wanted.update(keys)
        self._bookkeep(lambda: self._ledger.want(keys, self._owner, time.time() + WANT))

    def unwant(self, keys: Collection[str] | None) -> None:
        """None: nothing is wanted any more."""
        with self._lock:
            self._wanted.difference_update(self._wanted.copy() if keys is None else keys)
        if keys is None:
            self._bookkeep(lambda: self._ledger.forget(self._owner))
        else:
            self._bookkeep(lambda: self._ledger.unwant(keys, self._owner))

    def flush(self) -> None:
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
        with suppress(sqlite3.Error, OSError), self._changing():
            change()
