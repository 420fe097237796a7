"""One file written and hashed at once: bytes go to the disk, the two SHA-256s on threads of their own.

hashlib and file writes release the GIL, so on two cores the digests cost little over the writing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from datahub.pack.ground import Sink
from datahub.store.blocks import BlockHasher, FileDigests

FLUSH = 4 << 20
"""Bytes gathered before they are handed on."""
COPY = 16 << 10
"""Mean bytes of a piece under which pieces are joined into one buffer."""


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
    """Writes one file into ``sink``; `finish` makes it durable and gives its digests."""

    def __init__(self, sink: Sink) -> None:
        self.bytes = 0
        self._sink = sink
        self._parts: list[bytes] = []
        self._held = 0
        self._blocks = BlockHasher()
        self._lanes = [_Lane(sink.write), _Lane(self._hash_whole), _Lane(self._hash_blocks)]

    def put(self, data: bytes) -> None:
        """Append ``data``; it is handed on in buffers of about `FLUSH` bytes."""
        self._parts.append(data)
        self._held += len(data)
        self.bytes += len(data)
        if self._held >= FLUSH:
            self._flush()

    def finish(self) -> FileDigests:
        """Digests of the whole file, which is durable then. Raises what the sink raises."""
        try:
            self._flush()
            self._end()
        except BaseException:
            self._sink.abandon()
            raise
        self._sink.finish()
        return self._blocks.result()

    def abandon(self) -> None:
        """Stop the threads and the sink."""
        for lane in self._lanes:
            lane.end()
        self._sink.abandon()

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
            if lane.error is not None:
                raise lane.error

    def _hash_whole(self, parts: list[bytes]) -> None:
        for data in parts:
            self._blocks.update_whole(data)

    def _hash_blocks(self, parts: list[bytes]) -> None:
        for data in parts:
            self._blocks.update_blocks(data)
