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
WRITEBACK = 32 << 20
"""Bytes after which the kernel is asked to start writing, so that the final fsync finds little left."""


class _Lane:
    """A thread that does one thing to every buffer, in order."""

    def __init__(self, work: Callable[[bytes], None]) -> None:
        self._work = work
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, data: bytes) -> None:
        self._queue.put(data)

    def end(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            if self.error is None:
                try:
                    self._work(data)
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
        self._lanes = [_Lane(self._write), _Lane(self._blocks.update_whole), _Lane(self._digest_parts)]

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
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._held = [], 0
        for lane in self._lanes:
            lane.put(data)
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

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._written += len(data)
        if self._written - self._asked >= WRITEBACK:
            # DONTNEED on dirty pages starts their write-back without waiting; clean ones before them may go.
            os.posix_fadvise(self._descriptor, self._asked, self._written - self._asked, os.POSIX_FADV_DONTNEED)
            self._asked = self._written

    def _digest_parts(self, data: bytes) -> None:
        self._blocks.update_blocks(data)
        self._md5.update(data)
