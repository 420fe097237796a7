"""A loopback HTTP origin in a process of its own: as fast as sendfile, or with the latency and pace of a real link.

    python tests/benchmarks/_origin.py FILE [--latency SECONDS] [--rate BYTES_PER_SECOND] [--together]

Prints its port and serves FILE at every path, or the files of a folder at theirs, ranges included, until it is killed.
``--together``: the rate is that of all connections, not of each.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

CHUNK = 1 << 18


class Link:
    """A link of so many bytes a second (0: any number) that everybody shares, a chunk after the other."""

    def __init__(self, rate: float) -> None:
        self.rate, self._free = rate, 0.0

    async def carry(self, count: int) -> None:
        if self.rate:
            now = asyncio.get_running_loop().time()
            self._free = max(now, self._free) + count / self.rate
            await asyncio.sleep(self._free - now)


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: Path, latency: float, rate: float, link: Link
) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(latency)  # the connection's own round trip
    while request := await reader.readuntil(b"\r\n\r\n"):
        await asyncio.sleep(latency)
        head = request.decode("latin-1")
        asked = path / head.split(" ")[1].lstrip("/") if path.is_dir() else path
        if not asked.is_file():
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            continue
        size = asked.stat().st_size
        with asked.open("rb") as handle:
            head = head.lower()
            first, last = 0, size - 1
            if "range: bytes=" in head:
                span = head.partition("range: bytes=")[2].partition("\r\n")[0]
                first, last = int(span.partition("-")[0]), min(int(span.partition("-")[2] or size - 1), size - 1)
            status = "206 Partial Content" if "range: bytes=" in head else "200 OK"
            writer.write(
                f'HTTP/1.1 {status}\r\nContent-Length: {last - first + 1}\r\nETag: "v1"\r\n'
                f"Content-Range: bytes {first}-{last}/{size}\r\n\r\n".encode()
            )
            await writer.drain()
            began, sent = loop.time(), 0
            while sent <= last - first:
                count = min(CHUNK if rate or link.rate else 1 << 24, last - first + 1 - sent)
                await link.carry(count)
                await loop.sendfile(writer.transport, handle, first + sent, count)
                sent += count
                if rate:
                    await asyncio.sleep(max(0.0, began + sent / rate - loop.time()))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--together", action="store_true")
    options = parser.parse_args()
    link = Link(options.rate if options.together else 0.0)
    rate = 0.0 if options.together else options.rate

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer, options.file, options.latency, rate, link)
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            pass  # the last is what sendfile raises for a client that left
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
