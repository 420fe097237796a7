"""The books of a block cache: which blocks are whole, which are being filled by whom, and what is wanted soon.

SQLite in WAL mode on a local disk: a transaction is all or nothing, whoever is killed. A block's bytes are on the
books from before its first byte is received until after its file is gone, so that they never say less than the disk
holds. One connection a process, made on first use and anew after a fork.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from datahub.core.processes import boot, gone
from datahub.store.cache.policy import AHEAD, Entry

NAME = "ledger-1.sqlite"
"""The number is the form of the tables: another version keeps books, and blocks, of its own."""
BUSY = 30.0
"""Seconds to wait for another process's transaction; each takes milliseconds."""
PAUSE = 0.005
"""Seconds between two requests for WAL."""

TABLES = """
CREATE TABLE IF NOT EXISTS block (
    key TEXT PRIMARY KEY, bytes INTEGER NOT NULL, tag TEXT NOT NULL, used REAL NOT NULL,
    owner TEXT, until REAL NOT NULL DEFAULT 0,
    inode INTEGER NOT NULL DEFAULT 0, mtime INTEGER NOT NULL DEFAULT 0, boot TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS filling ON block (owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS want (
    key TEXT NOT NULL, owner TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hold (
    tag TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, until REAL, steady REAL, boot TEXT NOT NULL,
    PRIMARY KEY (tag, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS total (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO total VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON block
    BEGIN UPDATE total SET bytes = bytes + NEW.bytes; END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON block
    BEGIN UPDATE total SET bytes = bytes - OLD.bytes; END;
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A block on the books. ``owner``: who fills it, None once it is whole; after ``until`` a fill is given up."""

    key: str
    bytes: int
    owner: str | None
    until: float
    inode: int
    mtime: int
    boot: str

    def abandoned(self, now: float) -> bool:
        """Whether its filler is gone or out of time."""
        return self.owner is not None and (self.until < now or gone(self.owner.partition("#")[0]))


@dataclass(frozen=True, slots=True)
class Hold:
    """Somebody's wish that no block of ``tag`` is evicted: a pin (``name`` is empty), or a lease ``until`` a time.

    ``steady`` is the same moment on a clock that nobody sets, which counts until the machine starts anew.
    """

    tag: str
    name: str
    bytes: int
    until: float | None = None
    steady: float | None = None
    boot: str = ""

    def left(self, now: float, boot: str) -> float | None:
        """Seconds that it holds still; None: for ever."""
        if self.until is None or self.steady is None:
            return None
        return self.steady - time.monotonic() if boot and self.boot == boot else self.until - now


class Ledger:
    """Safe in threads and after fork. Raises ``sqlite3.Error`` where the disk does not let it write."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._reset()

    def _reset(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A transaction that excludes every other process's; rolled back by an exception."""
        if self._process != os.getpid():
            _inherited.append(self._connection)  # closing it here would disturb the parent's
            self._reset()
        with self._lock:
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            try:
                _use_wal(connection)
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.executescript(f"BEGIN IMMEDIATE; {TABLES} COMMIT;")
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def close(self) -> None:
        if self._process == os.getpid():
            with self._lock:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close()

    # -- inside `changing` ----------------------------------------------------------------------------------------

    def row(self, key: str) -> Row | None:
        found = self._one("SELECT key, bytes, owner, until, inode, mtime, boot FROM block WHERE key = ?", key)
        return None if found is None else Row(*found)

    def total(self) -> int:
        """Bytes of all blocks, those that are only reserved among them."""
        return int(self._one("SELECT bytes FROM total")[0])

    def count(self) -> tuple[int, int]:
        """Blocks that are whole, and blocks that are being filled."""
        whole, filling = self._one("SELECT count(*) FILTER (WHERE owner IS NULL), count(owner) FROM block")
        return int(whole), int(filling)

    def reserve(self, key: str, size: int, tag: str, owner: str, now: float, until: float) -> None:
        """Put a block on the books, or hand one that is there to a new filler."""
        self._run(
            "INSERT INTO block (key, bytes, tag, used, owner, until) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, until = excluded.until, tag = excluded.tag",
            (key, size, tag, now, owner, until),
        )

    def whole(self, key: str, used: float, inode: int, mtime: int, boot: str) -> None:
        self._run(
            "UPDATE block SET owner = NULL, until = 0, used = ?, inode = ?, mtime = ?, boot = ? WHERE key = ?",
            (used, inode, mtime, boot, key),
        )

    def remove(self, key: str) -> None:
        self._run("DELETE FROM block WHERE key = ?", (key,))

    def used(self, times: Mapping[str, tuple[float, str]]) -> None:
        """Key -> (when it was read, for which tag)."""
        self._many(
            "UPDATE block SET used = CASE WHEN used > ? THEN ? ELSE max(used, ?) END,"
            " tag = CASE WHEN tag IN (SELECT tag FROM hold) THEN tag ELSE ? END"
            " WHERE key = ? AND owner IS NULL",
            ((when + AHEAD, when, when, tag, key) for key, (when, tag) in times.items()),
        )

    def used_at(self, keys: Iterable[str]) -> dict[str, float]:
        """Key -> when it was used last, of those that are whole."""
        statement = "SELECT used FROM block WHERE key = ? AND owner IS NULL"
        found = {key: self._one(statement, key) for key in keys}
        return {key: float(row[0]) for key, row in found.items() if row is not None}

    def entries(self) -> list[Entry]:
        """Every whole block."""
        return [Entry(*each) for each in self._all("SELECT key, bytes, tag, used FROM block WHERE owner IS NULL")]

    def keys(self) -> set[str]:
        return {str(key) for (key,) in self._all("SELECT key FROM block")}

    def filling(self) -> list[Row]:
        return [
            Row(*each)
            for each in self._all(
                "SELECT key, bytes, owner, until, inode, mtime, boot FROM block WHERE owner IS NOT NULL"
            )
        ]

    def want(self, keys: Iterable[str], owner: str, until: float) -> None:
        self._many("INSERT OR REPLACE INTO want VALUES (?, ?, ?)", ((key, owner, until) for key in keys))

    def unwant(self, keys: Iterable[str], owner: str) -> None:
        self._many("DELETE FROM want WHERE owner = ? AND key = ?", ((owner, key) for key in keys))

    def forget(self, owner: str) -> None:
        """The holder wants nothing any more."""
        self._run("DELETE FROM want WHERE owner = ?", (owner,))

    def wanted(self, now: float) -> set[str]:
        """What living holders want; what others left behind is taken off."""
        self._run("DELETE FROM want WHERE until < ?", (now,))
        for (owner,) in self._all("SELECT DISTINCT owner FROM want"):
            if gone(owner.partition("#")[0]):
                self.forget(owner)
        return {str(key) for (key,) in self._all("SELECT DISTINCT key FROM want")}

    def hold(self, hold: Hold) -> None:
        self._run(
            "INSERT OR REPLACE INTO hold VALUES (?, ?, ?, ?, ?, ?)",
            (hold.tag, hold.name, hold.bytes, hold.until, hold.steady, hold.boot),
        )

    def unhold(self, tag: str, name: str) -> None:
        self._run("DELETE FROM hold WHERE tag = ? AND name = ?", (tag, name))

    def holds(self, now: float) -> list[Hold]:
        """Those that hold still; the others are taken off."""
        found, here = [], boot()
        for row in self._all("SELECT tag, name, bytes, until, steady, boot FROM hold ORDER BY tag, name"):
            hold = Hold(*row)
            left = hold.left(now, here)
            if left is not None and left <= 0:
                self.unhold(hold.tag, hold.name)
            else:
                found.append(hold)
        return found

    def held(self, now: float) -> set[str]:
        """Tags of which no block may go."""
        return {hold.tag for hold in self.holds(now)}

    def sizes(self) -> dict[str, int]:
        """Tag -> bytes of its whole blocks."""
        return dict(self._all("SELECT tag, sum(bytes) FROM block WHERE owner IS NULL GROUP BY tag"))

    def _one(self, statement: str, *values: object) -> tuple:  # type: ignore[type-arg]
        return self._connect().execute(statement, values).fetchone()  # type: ignore[no-any-return]

    def _all(self, statement: str) -> list[tuple]:  # type: ignore[type-arg]
        return self._connect().execute(statement).fetchall()

    def _run(self, statement: str, values: tuple[object, ...]) -> None:
        self._connect().execute(statement, values)

    def _many(self, statement: str, values: Iterable[tuple[object, ...]]) -> None:
        self._connect().executemany(statement, values)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Ask for WAL until it is granted: where two processes ask at once SQLite fails one of them without waiting."""
    deadline = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


_inherited: list[sqlite3.Connection | None] = []
"""Connections that a fork brought along: they are the parent's, and are kept from being closed here."""
