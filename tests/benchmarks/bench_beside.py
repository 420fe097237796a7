"""Small ranges beside what takes much: 256 KiB of warm files on loopback while one client reads whole files as fast as
they come, and while hundreds of clients connect; the cache server and nginx, in turns.

    python tests/benchmarks/bench_beside.py [--rate 200] [--readers 1] [--herd 500] [--seconds 3] [--rounds 5]

Prints one JSON line for each: time to the first byte of the small ranges (see `pace.c`), the median round by its p99,
and what the readers got. Needs what `bench_serve.py` needs.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks._pace import built, paced  # noqa: E402
from tests.benchmarks.bench_serve import MIB, Load, Peer, measure, nginx, ours, store  # noqa: E402

SIZE, RANGE, CLIENTS = 64 * MIB, 256 << 10, 16


@contextmanager
def reading(peer: Peer, readers: int, seconds: float, work: Path, told: list[float]) -> Iterator[None]:
    """Whole files, one after the other, by so many clients; ``told`` gets their GB/s."""
    load = Load("whole files", 0, readers)

    def read() -> None:
        os.nice(19)  # this thread, and wrk: what they compute must not hold up the program that counts
        told.append(measure(peer, load, SIZE, seconds + 1, work, 0).gigabytes)

    thread = threading.Thread(target=read, name="readers")
    thread.start()
    time.sleep(0.5)
    yield
    thread.join()


@contextmanager
def connecting(peer: Peer, herd: int, seconds: float) -> Iterator[None]:
    """So many clients that connect at once, again and again; they say nothing, and stay."""
    ended = threading.Event()

    def come() -> None:
        with ExitStack() as stack:
            while not ended.wait(0.5):
                for _ in range(herd):
                    stack.enter_context(socket.create_connection(("127.0.0.1", peer.port), seconds))

    thread = threading.Thread(target=come, name="herd")
    thread.start()
    yield
    ended.set()
    thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="small ranges a second")
    parser.add_argument("--readers", type=int, default=1)
    parser.add_argument("--herd", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=18_481, help="of nginx")
    parser.add_argument("--only", default="", help="readers or clients")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        entries, program = store(work / "home", 4, SIZE), built(work)
        with ours(work / "home", work, entries) as mine, nginx(work / "home", work, entries, o.port) as peer:
            for each in (mine, peer):
                measure(each, Load("warm", 0, 2), SIZE, 1.0, work, 0)
            for beside in (f"{o.readers} readers of whole files", f"{o.herd} clients that connect"):
                if o.only in beside:
                    print(json.dumps({"beside": beside, **compare((mine, peer), beside, o, program, work)}), flush=True)


def compare(peers: tuple[Peer, Peer], beside: str, o: argparse.Namespace, program: Path, work: Path) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {each.name: [] for each in peers}
    rates: dict[str, list[float]] = {each.name: [] for each in peers}
    for number in range(o.rounds):
        for each in peers if number % 2 == 0 else reversed(peers):
            load = (
                reading(each, o.readers, o.seconds, work, rates[each.name])
                if "readers" in beside
                else connecting(each, o.herd, o.seconds)
            )
            with load:
                told = paced(
                    program, each.port, each.paths, rate=o.rate, seconds=o.seconds, connections=CLIENTS, size=RANGE,
                    ranges=SIZE // RANGE, seed=number,
                )  # fmt: skip
            found[each.name].append(told["first byte, ms"])
    facts: dict[str, Any] = {}
    for name, rounds in found.items():
        facts[f"{name}, first byte, ms"] = sorted(rounds, key=lambda each: each["p99"])[len(rounds) // 2]
        facts[f"{name}, p99 of all rounds"] = [each["p99"] for each in rounds]
        if rates[name]:
            facts[f"{name}, readers' GB/s"] = round(sorted(rates[name])[len(rates[name]) // 2], 2)
    return facts


if __name__ == "__main__":
    main()
