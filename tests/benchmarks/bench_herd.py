"""A thousand clients on one cold blob of 16 MiB: what the origin sends, when first bytes come, what the server holds.

The origin is a process of its own with a link's pace; every client is a connection of its own that checks every byte.

    python tests/benchmarks/bench_herd.py [--clients 1000] [--rate 20e6] [--latency 0.02] [--workers 1]

Prints one JSON line. The goals: at most 1.01 times the blob from the origin; every first byte within the time the
origin needs for one block and 2 s; every body right; at most 300 MiB of memory in the server.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datahub.core.digests import BLOCK
from tests.benchmarks.bench_serve import process, store

SIZE = 16 << 20
DEADLINE = 150.0


@dataclass(slots=True)
class Client:
    connection: socket.socket
    head: bytes = b""
    got: int = -1
    """Bytes of the body; -1 before its headers ended."""
    first: float = 0.0


def herd(port: int, path: str, clients: int, expected: bytes) -> tuple[list[float], int, float]:
    """Seconds to every first byte, bodies that were right, seconds until the last one ended."""
    selector = selectors.DefaultSelector()
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    for _ in range(clients):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, Client(connection))
    began = time.perf_counter()
    for key in list(selector.get_map().values()):
        key.data.connection.sendall(request)
    firsts, right, left = [], 0, clients
    while left and time.perf_counter() - began < DEADLINE:
        for key, _ in selector.select(1.0):
            client: Client = key.data
            data = client.connection.recv(1 << 18)
            if not data or not _take(client, data, expected):
                left -= 1
                right += client.got == len(expected)
                firsts += [client.first - began] if client.first else []
                selector.unregister(client.connection)
                client.connection.close()
    return firsts, right, time.perf_counter() - began


def _take(client: Client, data: bytes, expected: bytes) -> bool:
    """Whether the answer may go on: its bytes are right so far, and not all are there."""
    if client.got < 0:
        client.head += data
        head, end, data = client.head.partition(b"\r\n\r\n")
        if not end:
            return True
        if b" 200 " not in head.split(b"\r\n")[0]:
            return False
        client.got = 0
    if data and not client.first:
        client.first = time.perf_counter()
    if not expected.startswith(data, client.got):
        client.got = -2
        return False
    client.got += len(data)
    return client.got < len(expected)


def peak(pid: int) -> int:
    """The most memory that a process and its children held, in bytes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = [Path(f"/proc/{each}/status").read_text() for each in (pid, *children)]
    return sum(int(match[1]) * 1024 for text in status if (match := re.search(r"VmHWM:\s+(\d+)", text)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20e6)
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=1)
    o = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * o.clients + 256), hard))
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (entry,) = store(work / "far", 1, SIZE)
        pace = ["--rate", str(o.rate), "--latency", str(o.latency)]
        script = str(Path(__file__).with_name("_origin.py"))
        with process([sys.executable, script, str(work / "far"), *pace], 1, stdout=subprocess.PIPE) as origin:
            assert origin.stdout is not None
            url = f"http://127.0.0.1:{int(origin.stdout.readline())}"
            command = [sys.executable, "-m", "datahub", "serve", "--store", str(work / "near"), "--port", "0"]
            command += ["--origin", url, "--workers", str(o.workers), "--access-log", "off"]
            with process(command, 0, stdout=subprocess.PIPE) as server:
                assert server.stdout is not None
                match = re.search(r":(\d+)", server.stdout.readline())
                assert match, "our server did not start"
                near = f"http://127.0.0.1:{match[1]}"
                urllib.request.urlopen(f"{near}/v1/datasets/bench/1.0/published/dataset.json", timeout=60).close()
                idle = peak(server.pid)
                expected = np.random.default_rng(0).bytes(SIZE)
                firsts, right, seconds = herd(int(match[1]), f"/v1/blobs/{entry.sha256}", o.clients, expected)
                told = urllib.request.urlopen(f"{near}/metrics", timeout=60).read().decode()
                sent = sum(float(each) for each in re.findall(r"datahub_origin_bytes_total{.*} (\S+)", told))
                facts = {
                    "clients": o.clients,
                    "right": right,
                    "origin bytes / blob": round(sent / SIZE, 4),
                    "a block's origin time, s": round(BLOCK / o.rate + o.latency, 3),
                    "first byte, s": {"median": round(statistics.median(firsts), 3), "last": round(max(firsts), 3)},
                    "all, s": round(seconds, 1),
                    "server MiB": {"before": idle >> 20, "most": peak(server.pid) >> 20},
                }
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
