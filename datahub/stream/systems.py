"""Files below any URL that fsspec speaks: s3, gs, hf, ftp, memory, file, ..."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from datahub.core.errors import BadArgument, ConnectionLost, HttpError, MissingExtra, OriginStalled
from datahub.pack.ground import open_fs, translated
from datahub.stream.origin import Received


class SystemFiles:
    """The file system's own client keeps connections and credentials; each process opens its own."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
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
        return f"{self.url}/{path}"

    def receive(self, path: str, start: int, end: int, seconds: float, received: Received) -> None:
        system = self._opened()
        data = self._in_time(path, seconds, lambda: system.cat_file(f"{self._root}/{path}", start=start, end=end))
        received(data[: end - start])
        if len(data) < end - start:
            raise ConnectionLost(self.name(path), f"ended after {len(data)} of {end - start} bytes")

    def whole(self, path: str, seconds: float) -> bytes:
        system = self._opened()
        return self._in_time(path, seconds, lambda: system.cat_file(f"{self._root}/{path}"))

    def close(self) -> None:
        """fsspec keeps its own pools."""

    def _in_time(self, path: str, seconds: float, call: Callable[[], bytes]) -> bytes:
        """The call's result, from a thread that is left alone where it takes too long: few clients take a deadline."""
        answer: list[bytes | BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                answer.append(call())
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
                answer.append(error)
            done.set()

        threading.Thread(target=run, name="datahub-fsspec", daemon=True).start()
        if not done.wait(seconds):
            raise OriginStalled(self.name(path), seconds)
        found = answer[0]
        if isinstance(found, bytes):
            return found
        with translated(self.name(path)):
            if isinstance(found, FileNotFoundError):
                raise HttpError(self.name(path), 404, "not found")
            raise found if isinstance(found, BaseException) else TypeError(type(found).__name__)

    def __reduce__(self) -> tuple[type[SystemFiles], tuple[str]]:
        return SystemFiles, (self.url,)
