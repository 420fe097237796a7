"""A cache server that is killed at random moments while it fills from an origin and readers compare every byte.

    python tests/benchmarks/stress_kill.py [--kills 200] [--readers 4] [--rate 80e6] [--seed 0]

Every other start has two worker processes. Killed is all of it, or its parent only; then it is started again on the
same store. The quota is half of the dataset, so that it also dies while it evicts. Prints one JSON line; exits 1 where
a byte was wrong, a block file on disk was not what its name says, or a start took more than 2 s.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks._server import Serving  # noqa: E402
from tests.benchmarks.bench_serve import store  # noqa: E402

FILES, SIZE = 6, 16 << 20
READY = 2.0
RECORD = "/v1/datasets/bench/1.0/published/dataset.json"
DEADLINE = 60.0


@dataclass
class Readers:
    """Threads that read random ranges. ``truth``: what each blob is."""

    truth: dict[str, bytes]
    port: int = 0
    right: int = 0
    bytes: int = 0
    broken: int = 0
    """Answers that were cut off, and connections that failed."""
    refused: int = 0
    """Answers that say why there is none."""
    wrong: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, seed: int, leaving: float = 0.0) -> None:
        """Until the end. ``leaving``: the share of answers whose connection is closed in the middle."""
        chance = random.Random(seed)
        names = sorted(self.truth)
        while not self.ended.is_set():
            name = chance.choice(names)
            start = chance.randrange(SIZE)
            size = min(SIZE - start, chance.choice((1, 4096, 1 << 18, 5 << 20, SIZE)))
            most = chance.randrange(size) if chance.random() < leaving else size
            try:
                self._take(name, start, size, most)
            except (OSError, http.client.HTTPException):
                with self.lock:
                    self.broken += 1
                self.ended.wait(0.02)

    def _take(self, name: str, start: int, size: int, most: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", f"/v1/blobs/{name}", headers={"Range": f"bytes={start}-{start + size - 1}"})
            answer = connection.getresponse()
            if answer.status != 206:
                text = answer.read(500)
                with self.lock:
                    self.refused += 1
                    if answer.status not in (404, 502, 503, 504):
                        self.wrong.append(f"status {answer.status}: {text!r}")
                return
            got = 0
            while got < most and (part := answer.read(min(1 << 18, most - got))):
                if not self.truth[name].startswith(part, start + got):
                    with self.lock:
                        self.wrong.append(f"{name} at {start + got}, {len(part)} bytes")
                    return
                got += len(part)
            with self.lock:
                self.bytes += got
                self.right += got == most
                self.broken += got < most
        finally:
            connection.close()

    @contextmanager
    def reading(self, count: int, seed: int, leaving: float = 0.0) -> Iterator[None]:
        threads = [threading.Thread(target=self.read, args=(seed + n, leaving)) for n in range(count)]
        for each in threads:
            each.start()
        try:
            yield
        finally:
            self.ended.set()
            for each in threads:
                each.join(2 * DEADLINE)


@contextmanager
def origin(script: str, folder: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name(script)), str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def dataset(home: Path) -> dict[str, bytes]:
    """Makes it; its blobs by digest."""
    entries = store(home, FILES, SIZE)
    return {each.sha256: np.random.default_rng(number).bytes(SIZE) for number, each in enumerate(entries)}


def rotten(cache: Path) -> list[str]:
    """Block files whose bytes are not what their name says."""
    files = [path for path in cache.glob("blocks/*/*") if path.is_file()]
    return [path.name for path in files if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=80e6)
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    chance, starts = random.Random(o.seed), list[float]()
    with tempfile.TemporaryDirectory() as scratch:
        far, near = Path(scratch) / "far", Path(scratch) / "near"
        readers, damaged = Readers(dataset(far)), list[str]()
        with origin("_origin.py", far, "--rate", str(o.rate)) as url:
            options = ["--origin", url, "--quota", str(FILES * SIZE // 2), "--access-log", "off"]
            with Serving(near, *options) as first:
                readers.port = first.port
                first.get(RECORD)
            with readers.reading(o.readers, o.seed):
                for number in range(o.kills):
                    server = Serving(near, *options, "--workers", str(1 + number % 2), port=readers.port)
                    starts.append(server.ready)
                    with server:
                        time.sleep(chance.uniform(0.0, 0.8))
                        server.kill(parent=chance.random() < 0.3)
                    if number % 20 == 19:
                        damaged += rotten(near / "cache")
            damaged += rotten(near / "cache")
            with Serving(near, *options, port=readers.port) as last:
                whole = [last.get(f"/v1/blobs/{name}") == data for name, data in readers.truth.items()]
    facts = {
        "kills": o.kills,
        "bodies right": readers.right,
        "GB compared": round(readers.bytes / 1e9, 2),
        "cut off or not connected": readers.broken,
        "refused": readers.refused,
        "wrong": len(readers.wrong) + whole.count(False),
        "rotten block files": len(damaged),
        "ready again, s": {"median": round(statistics.median(starts), 2), "most": round(max(starts), 2)},
    }
    for each in readers.wrong[:20]:
        print(each, file=sys.stderr)
    print(json.dumps(facts), flush=True)
    sys.exit(bool(facts["wrong"] or damaged or max(starts) > READY))


if __name__ == "__main__":
    main()
