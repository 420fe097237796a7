"""Files of the server's own stores: a block is sent once its bytes were found right, and while its file is unchanged.

A change of a file is known by its inode, size, mtime and ctime; then every block is verified again before it is sent.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass

from datahub.core.digests import BLOCK
from datahub.serve.descriptors import Descriptors, Handle, look
from datahub.serve.library import Blob
from datahub.store.blocks import WIDTH, count

FILES = 256
"""Files kept open."""
VOUCHED = 1 << 14
"""Files of which it is remembered which blocks were verified."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """The blocks (1: verified) of a file that looked so."""

    seen: tuple[int, ...]
    blocks: bytearray


class LocalFiles:
    """`warm` is for the event loop, `verify` for threads."""

    def __init__(self) -> None:
        self._descriptors = Descriptors(FILES)
        self._vouched: dict[str, Vouched] = {}

    def warm(self, blob: Blob, start: int, end: int) -> tuple[Handle, int] | None:
        """The open file and where the verified bytes from ``start`` on end, at ``end`` at most; None: none are.

        The handle is given back by `release`.
        """
        key = str(blob.local)
        vouched = self._vouched.get(key)
        if vouched is None:
            return None
        handle = self._descriptors.take(key) or self._open(key)
        if handle is None:
            return None
        if handle.seen == vouched.seen and handle.unchanged():
            first, last = start // BLOCK, -(-end // BLOCK)
            missing = vouched.blocks.find(0, first, last)
            stop = end if missing < 0 else min(end, missing * BLOCK)
            if stop > start:
                return handle, stop
        else:
            self._descriptors.forget(key)
            self._vouched.pop(key, None)
        self._descriptors.give_back(handle)
        return None

    def release(self, handle: Handle) -> None:
        self._descriptors.give_back(handle)

    def verify(self, blob: Blob, number: int) -> bool:
        """Whether a block's bytes are right; they are remembered then. False where the file is gone or damaged."""
        key = str(blob.local)
        try:
            descriptor = os.open(key, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._vouched.pop(key, None)
            return False
        try:
            before = look(descriptor)
            data = _read(descriptor, number * BLOCK, min(BLOCK, blob.size - number * BLOCK))
            right = hashlib.sha256(data).digest() == blob.raw[number * WIDTH : (number + 1) * WIDTH]
            if right and before[1] == blob.size and look(descriptor) == before:
                self._vouch(key, before, count(blob.size), number)
                return True
        except OSError:
            pass
        finally:
            os.close(descriptor)
        return False

    def distrust(self, blob: Blob, number: int) -> None:
        """Forget that a block was verified."""
        vouched = self._vouched.get(str(blob.local))
        if vouched is not None:
            vouched.blocks[number] = 0

    def verified(self, blob: Blob, number: int) -> bool:
        """Whether a block was right when it was looked at."""
        vouched = self._vouched.get(str(blob.local))
        return vouched is not None and vouched.blocks[number] == 1

    def sweep(self) -> None:
        self._descriptors.sweep()

    def close(self) -> None:
        self._descriptors.close()

    def _open(self, key: str) -> Handle | None:
        with suppress(OSError):
            descriptor = os.open(key, os.O_RDONLY | os.O_CLOEXEC)
            handle = Handle(descriptor, look(descriptor), users=1)
            self._descriptors.put(key, handle)
            return handle
        self._vouched.pop(key, None)
        return None

    def _vouch(self, key: str, seen: tuple[int, ...], total: int, number: int) -> None:
        known = self._vouched.get(key)
        if known is None or known.seen != seen:
            if len(self._vouched) >= VOUCHED:
                self._vouched.clear()
            known = self._vouched[key] = Vouched(seen, bytearray(total))
        known.blocks[number] = 1


def _read(descriptor: int, start: int, size: int) -> bytes:
    data = os.pread(descriptor, size, start)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), start + len(data))):
        data += more
    return data
