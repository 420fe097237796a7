"""One file written and hashed at once: bytes go to the disk, the SHA-256s and the MD5 on threads of their own.

hashlib and file writes release the GIL, so on two cores the digests cost little over the writing.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from datahub.core.errors import from_oserror
from datahub.store.blocks import BlockHasher, FileDigests

FLUSH = 4 << 20
"""Bytes gathered before they are handed on."""
IOV_MAX = 512
"""Pieces of one writev; the kernel takes 1024."""
COPY = 16 << 10
"""Mean bytes of a piece under which pieces are joined into one buffer."""
WRITEBACK = 32 << 20
"""Bytes after which the kernel is asked to start writing, so that the final fsync finds little left."""


class _Lane:
    """A thread that does one thing to every buffer, in order."""

    def __init__(self, work: Callable[[list[bytes]], None]) -> None:
        self._work = work
        self._queue: queue.Queue[list[bytes] | None] = queue.Queue(maxsize=4)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, parts: list[bytes]) -> None:
        self._queue.put(parts)

    def end(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (parts := self._queue.get()) is not None:
            if self.error is None:
                try:
                    self._work(parts)
                except BaseException as error:  # noqa: BLE001 - handed to the thread that writes
                    self.error = error


class HashedWriter:
    """Writes ``path`` from the start; `finish` makes it durable and gives its digests."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._parts: list[bytes] = []
        self._held = 0
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise from_oserror(error, path) from error
        self._blocks = BlockHasher()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._written = self._asked = 0
        self._lanes = [_Lane(self._write), _Lane(self._hash_whole), _Lane(self._hash_parts)]

    def put(self, data: bytes) -> None:
        """Append ``data``; it is handed on in buffers of about `FLUSH` bytes."""
        self._parts.append(data)
        self._held += len(data)
        self.bytes += len(data)
        if self._held >= FLUSH:
            self._flush()

    def finish(self) -> tuple[FileDigests, str]:
        """(digests, md5 hex) of the whole file, which is on the disk then. Raises `DiskFull` and its kin."""
        self._flush()
        self._end()
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise from_oserror(error, self.path) from error
        finally:
            os.close(self._descriptor)
        return self._blocks.result(), self._md5.hexdigest()

    def abandon(self) -> None:
        """Stop the threads and close the file, which is left as it is."""
        for lane in self._lanes:
            lane.end()
        os.close(self._descriptor)

    def _flush(self) -> None:
        if not self._parts:
            return
        # Large pieces go on as they are; thousands of small ones cost more calls than one copy.
        parts = self._parts if self._held > COPY * len(self._parts) else [b"".join(self._parts)]
        self._parts, self._held = [], 0
        for lane in self._lanes:
            lane.put(parts)
        self._raise()

    def _end(self) -> None:
        for lane in self._lanes:
            lane.end()
        self._raise()

    def _raise(self) -> None:
        for lane in self._lanes:
            if isinstance(lane.error, OSError):
                raise from_oserror(lane.error, self.path) from lane.error
            if lane.error is not None:
                raise lane.error

    def _write(self, parts: list[bytes]) -> None:
        for first in range(0, len(parts), IOV_MAX):
            some = parts[first : first + IOV_MAX]
            size = sum(map(len, some))
            count = os.writev(self._descriptor, some)
            if count < size:
                rest = memoryview(b"".join(some))[count:]
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            self._written += size
        if self._written - self._asked >= WRITEBACK:
            # DONTNEED on dirty pages starts their write-back without waiting; clean ones before them may go.
            os.posix_fadvise(self._descriptor, self._asked, self._written - self._asked, os.POSIX_FADV_DONTNEED)
            self._asked = self._written

    def _hash_whole(self, parts: list[bytes]) -> None:
        for data in parts:
            self._blocks.update_whole(data)

    def _hash_parts(self, parts: list[bytes]) -> None:
        for data in parts:
            self._blocks.update_blocks(data)
            self._md5.update(data)
