"""Files below any URL that fsspec speaks: s3, gs, hf, ftp, memory, file, ..."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from datahub.core.errors import BadArgument, ConnectionLost, HttpError, MissingExtra, OriginStalled
from datahub.core.urls import shown
from datahub.pack.ground import open_fs, translated
from datahub.stream.origin import Received

MARKS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems call that which changes when a file does."""
T = TypeVar("T")


class SystemFiles:
    """The file system's own client keeps connections and credentials; each process opens its own."""

    def __init__(self, url: str) -> None:
        self.url = url if url.endswith("://") else url.rstrip("/")
        self._process, self._system, self._root = 0, None, ""
        self._opened()

    def _opened(self) -> Any:
        if self._process != os.getpid():
            try:
                self._system, root = open_fs(self.url)
            except MissingExtra as error:
                raise MissingExtra(error.extra, f"reading {self.url.partition(':')[0]}://") from error
            except BadArgument as error:
                raise BadArgument("source", self.url, error.reason, "give a URL that fsspec knows") from error
            self._root, self._process = root.rstrip("/"), os.getpid()
        return self._system

    def name(self, path: str) -> str:
        return shown(f"{self.url}/{path}")

    def receive(self, path: str, start: int, end: int, seconds: float, received: Received) -> None:
        system = self._opened()
        place = f"{self._root}/{path}"
        data: bytes = self._in_time(path, seconds, lambda: system.cat_file(place, start=start, end=end))
        received(data[: end - start])
        if len(data) < end - start:
            raise ConnectionLost(self.name(path), f"ended after {len(data)} of {end - start} bytes")

    def whole(self, path: str, seconds: float) -> bytes:
        system = self._opened()
        data: bytes = self._in_time(path, seconds, lambda: system.cat_file(f"{self._root}/{path}"))
        return data

    def facts(self, path: str, seconds: float) -> tuple[int, str]:
        """A file's size, and what changes when it is written again ("" where the system tells nothing)."""
        system = self._opened()
        info = self._in_time(path, seconds, lambda: system.info(f"{self._root}/{path}"))
        if not isinstance(info.get("size"), int):
            raise ConnectionLost(self.name(path), "its size is not told")
        return info["size"], next((str(info[name]) for name in MARKS if info.get(name)), "")

    def close(self) -> None:
        """fsspec keeps its own pools."""

    def _in_time(self, path: str, seconds: float, call: Callable[[], T]) -> T:
        """The call's result, from a thread that is left alone where it takes too long: few clients take a deadline."""
        answer: list[T] = []
        failed: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                answer.append(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
                failed.append(error)
            done.set()

        threading.Thread(target=run, name="datahub-fsspec", daemon=True).start()
        if not done.wait(seconds):
            raise OriginStalled(self.name(path), seconds)
        if answer:
            return answer[0]
        with translated(self.name(path)):
            if isinstance(failed[0], FileNotFoundError):
                raise HttpError(self.name(path), 404, "not found")
            raise failed[0]

    def __reduce__(self) -> tuple[type[SystemFiles], tuple[str]]:
        return SystemFiles, (self.url,)
