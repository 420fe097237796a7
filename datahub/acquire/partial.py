"""A download in progress: ``<filename>.part`` and, beside it, ``<filename>.part.json`` that says what of it is there.

The state is saved as segments progress. After a kill the bytes are in the page cache or on the disk; after a power
cut they may not be, and then the digest says so.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import msgspec

from datahub.core import atomic
from datahub.core.errors import from_oserror
from datahub.core.learning import learn

SEGMENT = 16 << 20
"""Bytes of one range request."""
SAVE_EVERY = 0.5
"""Seconds between saves of the state."""


class State(msgspec.Struct, kw_only=True):
    url: str
    tag: str | None
    """ETag or Last-Modified of the file that is being downloaded; None: it cannot be resumed."""
    size: int
    done: dict[int, int]
    """Segment number -> bytes of it that are there, from its start."""


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def state_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def load(target: Path) -> State | None:
    try:
        state = msgspec.json.decode(state_of(target).read_bytes(), type=State)
        return state if part_of(target).is_file() else None
    except (OSError, msgspec.DecodeError):
        return None


def progress(target: Path) -> int:
    """Bytes of a partial download that are there."""
    state = load(target)
    return sum(state.done.values()) if state else 0


def discard(target: Path) -> None:
    part_of(target).unlink(missing_ok=True)
    state_of(target).unlink(missing_ok=True)


class Part:
    """The open ``.part`` file of a known size: threads write segments, a hasher follows the contiguous frontier."""

    def __init__(self, target: Path, state: State) -> None:
        self.target, self.state = target, state
        self._saved = 0.0
        self.changed = threading.Condition()
        atomic.make_dir(target.parent)
        try:
            self.descriptor = os.open(part_of(target), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._reserve()
        except OSError as error:
            raise from_oserror(error, part_of(target), writing=True) from error

    def _reserve(self) -> None:
        """Take the disk space now, so that a full disk is known before the bytes come."""
        if os.fstat(self.descriptor).st_size == self.state.size:
            return
        try:
            os.posix_fallocate(self.descriptor, 0, self.state.size)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
            os.truncate(self.descriptor, self.state.size)

    def segments(self) -> list[int]:
        """Numbers of the segments that are not whole."""
        return [n for n in range(-(-self.state.size // SEGMENT)) if self.state.done.get(n, 0) < self.length(n)]

    def length(self, segment: int) -> int:
        return min(SEGMENT, self.state.size - segment * SEGMENT)

    def write(self, segment: int, data: bytes | memoryview) -> None:
        """Append to a segment. Raises `DiskFull` and its kin."""
        at = segment * SEGMENT + self.state.done.get(segment, 0)
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self.descriptor, view, at)
                view, at = view[count:], at + count
        except OSError as error:
            raise from_oserror(error, part_of(self.target), writing=True) from error
        with self.changed:
            self.state.done[segment] = at - segment * SEGMENT
            self.changed.notify_all()
            if time.monotonic() - self._saved > SAVE_EVERY:
                self.save()

    def frontier(self) -> int:
        """Bytes from the start without a gap."""
        for segment in range(-(-self.state.size // SEGMENT)):
            done = self.state.done.get(segment, 0)
            if done < self.length(segment):
                return segment * SEGMENT + done
        return self.state.size

    def save(self) -> None:
        atomic.write_bytes(state_of(self.target), msgspec.json.encode(self.state), sync=False)
        self._saved = time.monotonic()

    def close(self, *, durable: bool = False) -> None:
        """Close the file; ``durable``: after fsync. Raises `DiskFull` and its kin."""
        try:
            if durable:
                os.fsync(self.descriptor)
        except OSError as error:
            raise from_oserror(error, part_of(self.target), writing=True) from error
        finally:
            os.close(self.descriptor)


def _codes() -> frozenset[int]:
    import errno

    return frozenset((errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS))


_NO_FALLOCATE = _codes()


learn(State)
