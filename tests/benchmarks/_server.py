"""A cache server as a process of its own, and what it holds."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

DEADLINE = 60.0


class Serving:
    """``datahub serve`` over a store, from its first line on; ``ready``: seconds from start to `/readyz`."""

    def __init__(self, home: Path, *options: str, port: int = 0, under: tuple[str, ...] = (), **more: Any) -> None:
        command = [
            *under,
            sys.executable,
            "-m",
            "datahub",
            "serve",
            "--store",
            str(home),
            "--port",
            str(port),
            *options,
        ]
        self._began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"://[^ ]*:(\d+)", line)
        if not found:
            self.process.kill()
            raise AssertionError(f"the server did not start: {line!r}")
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.get("/readyz")
        self.ready = time.monotonic() - self._began

    def get(self, path: str, **headers: str) -> bytes:
        asked = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(asked, timeout=DEADLINE) as answer:
            return bytes(answer.read())

    def all(self) -> list[psutil.Process]:
        whole = psutil.Process(self.process.pid)
        return [whole, *whole.children(recursive=True)]

    def held(self) -> dict[str, float]:
        """Resident MiB, descriptors and threads of all its processes."""
        found = self.all()
        return {
            "MiB": round(sum(each.memory_info().rss for each in found) / 2**20, 1),
            "descriptors": sum(each.num_fds() for each in found),
            "threads": sum(each.num_threads() for each in found),
        }

    def kill(self, *, parent: bool = False) -> None:
        """SIGKILL to every process of it, or to the ``parent`` only, whose workers are to end by themselves."""
        found = self.all()
        for each in found[:1] if parent else found:
            each.kill()
        self.process.wait(DEADLINE)
        _, alive = psutil.wait_procs(found, DEADLINE)
        assert not alive, "workers outlived their parent"

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
