"""Decompressed arrays that a source keeps while it is read, and leaves behind when it travels to another process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
ROOM = 512 << 20
"""Bytes kept; the newest entry stays whatever its size."""
SOURCES = 4
"""Caches that a worker process keeps between its tasks."""


class Cache(Generic[T]):
    """Loads each key once; drops the oldest entries beyond ``room`` bytes. Safe among threads.

    It pickles without its contents. A worker gets a fresh copy of its source with every task, so copies that arrive
    there with the same ``identity`` share one cache: a file is decompressed once a process, not once a shard.
    """

    def __init__(self, identity: str, size: Callable[[T], int], room: int = ROOM) -> None:
        self._identity, self._size, self._room = identity, size, room
        self._kept: dict[Hashable, T] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        with self._lock:  # held while loading: other threads want the same file
            if key in self._kept:
                self._kept[key] = self._kept.pop(key)
            else:
                self._kept[key] = load()
                self._trim()
            return self._kept[key]

    def _trim(self) -> None:
        while len(self._kept) > 1 and sum(map(self._size, self._kept.values())) > self._room:
            del self._kept[next(iter(self._kept))]

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._identity, self._size, self._room)


_here: dict[str, Cache[Any]] = {}
_here_lock = threading.Lock()


def _arrived(identity: str, size: Callable[[Any], int], room: int) -> Cache[Any]:
    """This process's cache for ``identity``."""
    with _here_lock:
        found = _here.pop(identity, None) or Cache(identity, size, room)
        _here[identity] = found
        while len(_here) > SOURCES:
            del _here[next(iter(_here))]
        return found
