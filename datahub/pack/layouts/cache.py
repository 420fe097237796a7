"""Decompressed arrays that a source keeps while it is read, and leaves behind when it travels to another process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
ROOM = 512 << 20
"""Bytes kept; the newest entry stays whatever its size."""


class Cache(Generic[T]):
    """Loads each key once; drops the oldest entries beyond ``room`` bytes. Pickles empty. Safe among threads."""

    def __init__(self, size: Callable[[T], int], room: int = ROOM) -> None:
        self._size, self._room = size, room
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

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self._size, "room": self._room}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["size"], state["room"])  # type: ignore[misc]
