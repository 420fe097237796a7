"""The jobs that read: what each reads, in which order, how far it is, and until when it is believed to live.

SQLite on the cache's disk, so that every process of the server knows them. Time is counted since the machine started:
a clock that is set by a day ends no job. Policies and leases ask `Jobs.alive`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from datahub.core.errors import NotWritable
from datahub.core.processes import boot
from datahub.wire.messages import Job, JobAsked

NAME = "jobs-1.sqlite"
BUSY = 10.0
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
MOST = 10_000
"""Jobs that are kept; those that say something when there are more are refused."""
LONG, MOST_SAID = 4096, 32 << 20
"""Bytes of a message that may be too many, and of all together: every process reads them every few seconds."""
TABLE = "CREATE TABLE IF NOT EXISTS job (name TEXT PRIMARY KEY, until REAL, boot TEXT, said BLOB) WITHOUT ROWID"


def damaged(error: Exception) -> bool:
    """Whether SQLite cannot read the file, which trying again does not change."""
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED


class TooManyJobs(ValueError):
    """There is no room for another job."""


class Jobs:
    """Called from threads. Raises `NotWritable` where the disk does not let it write."""

    def __init__(self, folder: Path, clock: Callable[[], float] | None = None) -> None:
        self._folder = folder
        self._clock = clock or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        self._boot, self._lock = boot(), threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def say(self, asked: JobAsked) -> Job:
        """Take in a job, or what it says now. Raises `TooManyJobs`."""
        said = msgspec.json.encode(asked)
        with self._changing() as connection:
            known = connection.execute("SELECT 1 FROM job WHERE name = ?", (asked.job,)).fetchone()
            if known is None and connection.execute("SELECT count(*) FROM job").fetchone()[0] >= MOST:
                raise TooManyJobs(f"there are {MOST} jobs")
            if len(said) > LONG and self._others(connection, asked.job) + len(said) > MOST_SAID:
                said = msgspec.json.encode(msgspec.structs.replace(asked, kept=""))  # what it has is only advice
            connection.execute(
                "INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?)",
                (asked.job, self._clock() + asked.ttl, self._boot, said),
            )
        return _job(asked, asked.ttl)

    def _others(self, connection: sqlite3.Connection, name: str) -> int:
        """Bytes that the other jobs said."""
        found = connection.execute("SELECT sum(length(said)) FROM job WHERE name <> ?", (name,)).fetchone()
        return int(found[0] or 0)

    def end(self, name: str) -> bool:
        """Whether there was such a job."""
        with self._changing() as connection:
            return connection.execute("DELETE FROM job WHERE name = ?", (name,)).rowcount > 0

    def alive(self) -> list[Job]:
        """Every job that is believed to live, by name."""
        with self._changing() as connection:
            rows = connection.execute("SELECT until, said FROM job ORDER BY name").fetchall()
        now = self._clock()
        return [_job(msgspec.json.decode(said, type=JobAsked), until - now) for until, said in rows]

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, without the jobs whose time is over."""
        with self._lock:
            try:
                connection = self._opened()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    connection.execute("DELETE FROM job WHERE until <= ? OR boot <> ?", (self._clock(), self._boot))
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                if damaged(error):
                    self._lose()
                raise NotWritable(str(self._folder / NAME), str(error)) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                self._connection = self._connect()
            except sqlite3.Error as error:
                if not damaged(error):
                    raise
                self._lose()
                self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        path = self._folder / NAME
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = OFF")  # what a power cut takes is said again
            connection.execute(TABLE)
            connection.execute("SELECT count(*) FROM job")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _lose(self) -> None:
        """Take a damaged file away, unless another process was first: the jobs that live say themselves again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        try:
            self._connect().close()
        except sqlite3.Error as error:
            if damaged(error):
                (self._folder / NAME).unlink(missing_ok=True)
                (self._folder / f"{NAME}-journal").unlink(missing_ok=True)


def _job(asked: JobAsked, left: float) -> Job:
    return Job(**{name: getattr(asked, name) for name in asked.__struct_fields__}, left=round(left, 3))
