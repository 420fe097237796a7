"""Memory for a set that is held whole, which other processes of this machine may map, too."""

from __future__ import annotations

import mmap
import os
import weakref
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray


class Memory:
    """``flat``, uint8 ``(n,)``, whose other handles (pickles in other processes) read the same bytes.

    A pickle may be opened while the process that made the memory has a handle of it.
    """

    def __init__(self, flat: NDArray[np.uint8], path: str = "") -> None:
        self.flat, self._path = flat, path

    @classmethod
    def taken(cls, size: int) -> Memory:
        """``size`` zeros. Pages are taken when they are first written to. Raises ``OSError``."""
        if not hasattr(os, "memfd_create"):
            return cls(np.zeros(size, np.uint8))
        descriptor = os.memfd_create("datahub-held")
        try:
            os.ftruncate(descriptor, max(size, 1))
            made = cls(_mapped(descriptor, size, mmap.ACCESS_WRITE), f"/proc/{os.getpid()}/fd/{descriptor}")
        except BaseException:
            os.close(descriptor)
            raise
        weakref.finalize(made, _close, descriptor)
        return made

    def view(self) -> memoryview:
        """All of it, read-only."""
        return self.flat.data.toreadonly()

    def __reduce__(self) -> tuple[object, ...]:
        return (_opened, (self._path, len(self.flat))) if self._path else (Memory, (self.flat,))


def _opened(path: str, size: int) -> Memory:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Memory(_mapped(descriptor, size, mmap.ACCESS_READ), path)
    finally:
        os.close(descriptor)


def _mapped(descriptor: int, size: int, access: int) -> NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(descriptor, max(size, 1), access=access), np.uint8)[:size]


def _close(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)
