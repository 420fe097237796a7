"""A loopback HTTP origin that fails at random in every way origins do.

    python tests/benchmarks/_faulty.py FOLDER [--faults 0.05] [--seed 0] [--stall 8]

Prints its port and serves the files of FOLDER, ranges included, until it is killed. So many of its answers are reset in
the middle, end early, have a wrong byte, stall, are an error, or carry an ETag or a total length that they did not have
before.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import struct
from contextlib import suppress
from pathlib import Path

FAULTS = ("reset", "short", "wrong", "stall", "error", "etag", "length")
PIECE = 1 << 18


class Faulty:
    def __init__(self, folder: Path, faults: float, seed: int, stall: float) -> None:
        self._folder, self._faults, self._stall = folder, faults, stall
        self._chance = random.Random(seed)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            while await self._answer((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"), writer):
                pass
        writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        path = self._folder / head.split(" ")[1].lstrip("/")
        fault = self._chance.choice(FAULTS) if self._chance.random() < self._faults else ""
        if not path.is_file() or fault == "error":
            status = "503 Service Unavailable" if fault else "404 Not Found"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        size = path.stat().st_size
        first, last = _span(head, size)
        data = bytearray(_read(path, first, last))
        if fault == "wrong":
            data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)
        etag = self._chance.randrange(1 << 30) if fault == "etag" else 1
        total = size + (self._chance.choice((-1, 1, 4096)) if fault == "length" else 0)
        told = f'Content-Length: {len(data)}\r\nETag: "v{etag}"\r\n'
        if "range:" in head.lower():
            told = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{total}\r\n{told}\r\n"
        else:
            told = f"HTTP/1.1 200 OK\r\n{told}\r\n"
        writer.write(told.encode())
        return await self._body(data, fault, writer)

    async def _body(self, data: bytearray, fault: str, writer: asyncio.StreamWriter) -> bool:
        stop = self._chance.randrange(len(data)) if fault in ("reset", "short", "stall") else len(data)
        for at in range(0, stop, PIECE):
            writer.write(data[at : min(stop, at + PIECE)])
            await writer.drain()
        if fault == "stall":
            await asyncio.sleep(self._stall)
            writer.write(data[stop:])
            await writer.drain()
        if fault == "reset":
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return fault not in ("reset", "short")


def _span(head: str, size: int) -> tuple[int, int]:
    _, _, asked = head.lower().partition("range: bytes=")
    if not asked:
        return 0, size - 1
    first, _, last = asked.partition("\r\n")[0].partition("-")
    return int(first), min(int(last or size - 1), size - 1)


def _read(path: Path, first: int, last: int) -> bytes:
    with path.open("rb") as handle:
        handle.seek(first)
        return handle.read(last - first + 1)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faults", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stall", type=float, default=8.0)
    o = parser.parse_args()
    server = await asyncio.start_server(Faulty(o.folder, o.faults, o.seed, o.stall).connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
