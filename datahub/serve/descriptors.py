"""Open files of the event loop: each opened once for many requests, closed when nobody used it for a while."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field

IDLE = 5.0
"""Seconds after which a file that nobody reads is closed: until then its block cannot be evicted."""


@dataclass(slots=True, eq=False)
class Handle:
    """An open file. ``seen``: what it looked like when its bytes were verified, see `look`."""

    descriptor: int
    seen: tuple[int, ...]
    users: int = 0
    used: float = field(default_factory=time.monotonic)
    noted: float = 0.0
    kept: bool = True

    def fileno(self) -> int:
        return self.descriptor

    def unchanged(self) -> bool:
        return look(self.descriptor) == self.seen


def look(descriptor: int) -> tuple[int, ...]:
    """Facts of a file that any write to it changes, whatever it does to the times that can be set."""
    facts = os.fstat(descriptor)
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


class Descriptors:
    """At most ``most`` files besides those being read. Not safe in threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: OrderedDict[str, Handle] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def take(self, key: str) -> Handle | None:
        """The open file, until it is given back."""
        handle = self._open.get(key)
        if handle is not None:
            self._open.move_to_end(key)
            handle.users += 1
        return handle

    def give_back(self, handle: Handle) -> None:
        handle.users -= 1
        handle.used = time.monotonic()
        if not handle.kept and handle.users == 0:
            os.close(handle.descriptor)

    def put(self, key: str, handle: Handle) -> None:
        """Keep an open file; another one of its key is closed once nobody reads it."""
        self.forget(key)
        self._open[key] = handle
        while len(self._open) > self._most:
            self.forget(next(iter(self._open)))

    def forget(self, key: str) -> None:
        handle = self._open.pop(key, None)
        if handle is not None:
            handle.kept = False
            if handle.users == 0:
                os.close(handle.descriptor)

    def sweep(self) -> list[str]:
        """Close what nobody used for a while; the keys of what was used since the last sweep."""
        now = time.monotonic()
        idle = [key for key, each in self._open.items() if not each.users and now - each.used > IDLE]
        used = [key for key, each in self._open.items() if each.used > each.noted]
        for handle in self._open.values():
            handle.noted = now
        for key in idle:
            self.forget(key)
        return used

    def close(self) -> None:
        for key in list(self._open):
            self.forget(key)
