"""A cache server of this process, on a loopback port, in an event loop of its own."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datahub.core.settings import Settings
from datahub.serve import serving as processes
from datahub.serve.config import ServeConfig, Tokens
from datahub.serve.log import Lines
from datahub.serve.running import bind
from datahub.serve.state import SERVER, Server

DEADLINE = 30.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Running:
    url: str
    server: Server
    log: Path
    host: str = "127.0.0.1"
    port: int = 0
    loop: Any = field(default=None, repr=False)
    stop: Any = field(default=None, repr=False)
    """Called in the loop, it ends the server."""

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request of its own connection; ``If_Range`` is the header If-Range. The path goes as it is."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def raw(self, sent: bytes) -> bytes:
        """What comes until the server closes the connection."""
        with socket.create_connection((self.host, self.port), DEADLINE) as connection:
            connection.sendall(sent)
            found = b""
            while data := connection.recv(1 << 16):
                found += data
            return found

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        for line in self.ask("/metrics").body.decode().splitlines():
            head, _, value = line.rpartition(" ")
            found, _, rest = head.partition("{")
            if found == name and all(f'{key}="{text}"' in rest for key, text in labels.items()):
                total += float(value)
        return total


@contextmanager
def running(settings: Settings, log: Path, *, tokens: Tokens | None = None, **config: Any) -> Iterator[Running]:
    """Serve the store of ``settings`` until the block ends."""
    whole = ServeConfig(port=0, access_log=str(log), drain=5.0, **config)
    listening = bind(whole)[0]
    ready, made = threading.Event(), {}

    async def main() -> None:
        stop = asyncio.Event()
        made["stop"], made["loop"] = stop, asyncio.get_running_loop()
        lines = Lines(str(log))
        build = processes.build

        def building(*arguments: Any) -> Any:
            app = build(*arguments)
            made["server"] = app[SERVER]
            return app

        processes.build = building
        try:
            await processes.serve(whole, settings, tokens or Tokens(), listening, lines, ready=ready.set, stop=stop)
        finally:
            processes.build = build
            lines.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="test-server", daemon=True)
    thread.start()
    assert ready.wait(DEADLINE), "the server did not start"
    port = listening.getsockname()[1]
    try:
        yield Running(
            f"http://127.0.0.1:{port}", made["server"], log, port=port, loop=made["loop"], stop=made["stop"].set
        )
    finally:
        with suppress(RuntimeError):  # it was stopped already
            made["loop"].call_soon_threadsafe(made["stop"].set)
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the server did not end"
