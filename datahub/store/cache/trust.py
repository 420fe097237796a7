"""Which block files are what was verified: from this process's memory, the books, or by looking again."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from datahub.core.processes import boot
from datahub.store.cache.block import Block, wrong
from datahub.store.cache.files import BlockFiles, Opened, Seen
from datahub.store.cache.ledger import Ledger, Row

REMEMBERED = 1 << 16
"""Blocks that a process knows to be verified without asking the books."""


class Trust:
    """Safe in threads; a process of its own after a fork. ``changing``: a transaction of the books."""

    def __init__(self, files: BlockFiles, ledger: Ledger, changing: Callable[[], AbstractContextManager[None]]) -> None:
        self._files, self._ledger, self._changing = files, ledger, changing
        self._boot = boot()
        self._verified: dict[str, Seen] = {}

    def has(self, block: Block, opened: Opened) -> bool:
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
        self.remember(block.key, opened.seen)
        return True

    def enter(self, key: str, seen: Seen) -> None:
        """Put a verified file on the books; inside a transaction."""
        self._ledger.whole(key, time.time(), seen.inode, seen.mtime, self._boot)

    def remember(self, key: str, seen: Seen) -> None:
        """The file that looks so was verified."""
        if len(self._verified) >= REMEMBERED:
            self._verified.clear()
        self._verified[key] = seen

    def drop(self, block: Block) -> None:
        """Take a damaged block away."""
        self._verified.pop(block.key, None)
        with suppress(sqlite3.Error, OSError), self._changing():
            row = self._ledger.row(block.key)
            if row is not None and row.owner is None:
                self._files.remove(block.key, though_read=True)
                self._ledger.remove(block.key)

    def _vouch(self, block: Block, seen: Seen) -> None:
        with suppress(sqlite3.Error, OSError), self._changing():
            row = self._ledger.row(block.key)
            if row is not None and row.owner is None:
                self.enter(block.key, seen)


def _pair(seen: Seen) -> tuple[int, int]:
    return seen.inode, seen.mtime
