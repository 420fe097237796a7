"""One file from one origin into ``<filename>.part``: parallel ranges, resumed after a kill, hashed on the way."""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from datahub.acquire import partial
from datahub.acquire.files import algorithms
from datahub.acquire.origins import Origin, Stream
from datahub.acquire.partial import SEGMENT, Part, State, part_of
from datahub.acquire.policy import RetryPolicy
from datahub.core.digests import CHUNK, Digest, MultiHash
from datahub.core.errors import (
    ConnectionLost,
    HttpError,
    NotTheFile,
    OriginChanged,
    OriginError,
    SizeMismatch,
    from_oserror,
)
from datahub.core.events import Listener, Note, Progress
from datahub.core.urls import shown
from datahub.registry.schema import File

PARALLEL = 32 << 20
"""Bytes from which a file is downloaded over several connections."""
TICK = 0.1
"""Seconds between looks at the threads' progress."""


class Cancelled(Exception):
    """Another file failed, or Ctrl-C: this download stops where it is and keeps what it has."""


class Download:
    """Downloads ``file`` from ``origin``; `run` gives the digests of the complete ``.part``, which is on the disk."""

    def __init__(
        self,
        file: File,
        target: Path,
        origin: Origin,
        *,
        policy: RetryPolicy,
        connections: int,
        listener: Listener,
        stop: threading.Event,
    ) -> None:
        self.file, self.target, self.origin = file, target, origin
        self.policy, self.connections, self.listener, self.stop = policy, connections, listener, stop

    def run(self) -> tuple[Digest, ...]:
        """Raises `OriginError`, `VerificationError` or `DiskError`; the ``.part`` is kept where it can be resumed."""
        state, place = partial.load(self.target), shown(self.origin.url)
        if state and (state.url != place or not state.tag or self.file.bytes not in (None, state.size)):
            partial.discard(self.target)
            state = None
        for again in (True, False):
            try:
                return self._resume(state) if state else self._patiently(self._begin)
            except OriginChanged as error:
                partial.discard(self.target)
                state = None
                if not again:
                    raise
                self.listener(Note("download", f"{error.message}; starting over", warning=True))
        raise AssertionError("unreachable")

    def _patiently(self, act: Callable[[], tuple[Digest, ...]]) -> tuple[Digest, ...]:
        """Try ``act`` again on errors that a retry can help."""
        for failures in itertools.count(1):
            try:
                return act()
            except OriginChanged:
                raise
            except OriginError as error:
                self._pause(failures, error)
        raise AssertionError("unreachable")

    def _pause(self, failures: int, error: OriginError) -> None:
        """Wait before the next attempt, or raise ``error`` if there is none."""
        if not error.retryable or failures >= self.policy.attempts:
            raise error
        delay = self.policy.delay(failures, error)
        self.listener(Note("download", f"{self.file.filename}: {error.message}; trying again in {delay:.1f} s"))
        if self.stop.wait(delay):
            raise Cancelled

    def _begin(self) -> tuple[Digest, ...]:
        """The first contact decides: ranges if the origin has them and says how long the file is, else one stream."""
        stream = self.origin.open(0, min(SEGMENT, self.file.bytes or SEGMENT), None)
        try:
            first = next(stream.chunks, b"")
            _refuse_page(self.file, stream, first)
            if stream.total is not None and self.file.bytes not in (None, stream.total):
                raise SizeMismatch(stream.url, self.file.bytes or 0, stream.total, "try another mirror")
            stream.chunks = itertools.chain([first], stream.chunks)
            if not stream.partial or stream.total is None:
                return self._one_stream(stream)
            state = State(url=shown(self.origin.url), tag=stream.tag, size=stream.total, done={})
            return self._ranges(Part(self.target, state), stream)
        finally:
            stream.close()

    def _resume(self, state: State) -> tuple[Digest, ...]:
        had = sum(state.done.values())
        self.listener(Note("download", f"{self.file.filename}: going on after {had} bytes"))
        return self._ranges(Part(self.target, state), None)

    # -- one stream ----------------------------------------------------------------------------------------------------

    def _one_stream(self, stream: Stream) -> tuple[Digest, ...]:
        """Write and hash a body in order. It cannot be resumed: a failure starts the file again."""
        partial.discard(self.target)
        hashes = MultiHash(algorithms(self.file))
        path = part_of(self.target)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb", buffering=0) as handle:
                for data in self._watched(stream.chunks):
                    handle.write(data)
                    hashes.update(data)
                    self.listener(Progress("download", self.file.filename, hashes.bytes, stream.total))
                os.fsync(handle.fileno())
        except OSError as error:
            raise from_oserror(error, path, writing=True) from error
        if stream.total is not None and hashes.bytes < stream.total:
            raise ConnectionLost(stream.url, f"the connection ended after {hashes.bytes} of {stream.total} bytes")
        return hashes.digests()

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for data in chunks:
            if self.stop.is_set():
                raise Cancelled
            yield data

    # -- ranges --------------------------------------------------------------------------------------------------------

    def _ranges(self, part: Part, first: Stream | None) -> tuple[Digest, ...]:
        """Fill ``part`` from several threads while another hashes its contiguous front."""
        crew = _Crew(self, part, first)
        try:
            part.save()
            hashes = crew.run()
        finally:
            crew.halt()
            part.save()
            part.close(durable=not part.segments())
        return hashes.digests()


class _Crew:
    """The threads of one ranged download. They are daemons: Ctrl-C does not wait for a silent server."""

    def __init__(self, download: Download, part: Part, first: Stream | None) -> None:
        self.download, self.part, self.first = download, part, first
        self.errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self.halted = threading.Event()
        self.segments: queue.SimpleQueue[int] = queue.SimpleQueue()
        missing = part.segments()
        for segment in missing:
            self.segments.put(segment)
        wanted = download.connections if part.state.size >= PARALLEL else 1
        names = [self._fetch] * min(wanted, len(missing)) + [self._hash]
        self.threads = [threading.Thread(target=self._guard, args=(work,), daemon=True) for work in names]
        self.hashes = MultiHash(algorithms(download.file))
        self._first_lock = threading.Lock()

    def run(self) -> MultiHash:
        download, state = self.download, self.part.state
        for thread in self.threads:
            thread.start()
        while any(thread.is_alive() for thread in self.threads):
            if not self.errors.empty():
                raise self.errors.get()
            if download.stop.is_set():
                raise Cancelled
            self.threads[-1].join(TICK)
            download.listener(Progress("download", download.file.filename, sum(state.done.copy().values()), state.size))
        if not self.errors.empty():
            raise self.errors.get()
        return self.hashes

    def halt(self) -> None:
        """Ask the threads to end, and wait a moment for those that are between reads."""
        self.halted.set()
        with self.part.changed:
            self.part.changed.notify_all()
        for thread in self.threads:
            thread.join(timeout=1.0)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self.errors.put(error)

    def _fetch(self) -> None:
        """Take segments until there are none; each is tried again from where it broke off."""
        failures = 0
        while not self.halted.is_set():
            try:
                segment = self.segments.get_nowait()
            except queue.Empty:
                return
            while (done := self.part.state.done.get(segment, 0)) < self.part.length(segment):
                if self.halted.is_set():
                    return
                try:
                    self._segment(segment)
                except OriginChanged:
                    raise
                except OriginError as error:
                    failures = 1 if self.part.state.done.get(segment, 0) > done else failures + 1
                    self.download._pause(failures, error)
            failures = 0

    def _segment(self, segment: int) -> None:
        part, state = self.part, self.part.state
        start, left = segment * SEGMENT + state.done.get(segment, 0), part.length(segment) - state.done.get(segment, 0)
        stream = self._stream(segment, start, start + left)
        try:
            for data in stream.chunks:
                if self.halted.is_set():
                    return
                part.write(segment, data[:left] if len(data) > left else data)
                left -= min(len(data), left)
                if not left:
                    # The iterator's own end gives the connection back for the next segment.
                    next(stream.chunks, None)
                    return
        finally:
            stream.close()
        raise ConnectionLost(stream.url, f"the connection ended {left} bytes early")

    def _stream(self, segment: int, start: int, end: int) -> Stream:
        with self._first_lock:
            first, self.first = (self.first, None) if segment == 0 and start == 0 else (None, self.first)
        if first is not None:
            return first
        state = self.part.state
        try:
            stream = self.download.origin.open(start, end, state.tag)
        except HttpError as error:
            if error.status == 416:
                raise OriginChanged(self.download.origin.url, f"{state.size} bytes", "shorter") from error
            raise
        same = stream.partial and (stream.tag or state.tag) == state.tag and stream.total in (None, state.size)
        if not same:
            stream.close()
            before, after = f"{state.tag} of {state.size} bytes", f"{stream.tag} of {stream.total} bytes"
            raise OriginChanged(stream.url, before, after)
        return stream

    def _hash(self) -> None:
        """Follow the contiguous front of the file, reading it back out of the page cache."""
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        part, hashes = self.part, self.hashes
        while hashes.bytes < part.state.size:
            with part.changed:
                while (front := part.frontier()) <= hashes.bytes:
                    if self.halted.is_set():
                        return
                    part.changed.wait(TICK)
            while hashes.bytes < front and not self.halted.is_set():
                count = os.preadv(part.descriptor, [view[: min(CHUNK, front - hashes.bytes)]], hashes.bytes)
                hashes.update(view[:count])
            if self.halted.is_set():
                return


def _refuse_page(file: File, stream: Stream, first: bytes) -> None:
    """Quota pages, logins and captive portals come with status 200: an HTML body in place of anything else is none."""
    if file.filename.lower().endswith((".html", ".htm", ".xml", ".svg")):
        return
    head = first[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or (stream.html and head.startswith(b"<")):
        raise NotTheFile(stream.url, "an HTML page")
