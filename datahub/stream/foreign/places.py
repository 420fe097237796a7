"""`ShardFiles`: shards at any URLs as the `Files` of a cache's source, each under the name that the index gives it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from datahub.stream.foreign.naming import WEB, Named
from datahub.stream.origin import Files, Received, open_files


class ShardFiles:
    """Safe in threads; picklable; usable after fork, as what it is made of is."""

    def __init__(self, shards: Sequence[Named]) -> None:
        self._shards = tuple(shards)
        self._named = {each.name: each for each in shards}
        self.url = shards[0].shown.rpartition("/")[0]
        self._lock, self._below = threading.Lock(), dict[str, Files]()

    def name(self, path: str) -> str:
        return self._named[path].shown if path in self._named else f"{self.url}/{path}"

    def receive(self, path: str, start: int, end: int, seconds: float, received: Received) -> None:
        files, file = self._of(path)
        files.receive(file, start, end, seconds, received)

    def whole(self, path: str, seconds: float) -> bytes:
        files, file = self._of(path)
        return files.whole(file, seconds)

    def facts(self, path: str, seconds: float) -> tuple[int, str]:
        """A shard's size, and its ETag or time of writing ("" where nothing is told). Raises `OriginError`s."""
        files, file = self._of(path)
        found: tuple[int, str] = files.facts(file, seconds)  # type: ignore[attr-defined]
        return found

    def close(self) -> None:
        for each in self._below.values():
            each.close()

    def _of(self, path: str) -> tuple[Files, str]:
        """The files of the folder that a shard is in (one a query string), and its name there."""
        base, file = _cut(self._named[path].url)
        with self._lock:
            if base not in self._below:
                self._below[base] = open_files(base)
            return self._below[base], file

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardFiles, (self._shards,)


def _cut(url: str) -> tuple[str, str]:
    """A URL's folder, with its query, and the file's name in it."""
    if url.partition("://")[0] not in WEB:
        folder, _, file = url.rpartition("/")
        return f"{folder}/" if folder.endswith(":/") else folder, file
    parts = urlsplit(url)
    folder, _, file = parts.path.rpartition("/")
    return urlunsplit(parts._replace(path=folder)), unquote(file)
