"""A cache server for minutes on end: random reads, evictions, clients that leave, an origin that fails in every way.

    python tests/benchmarks/soak_serve.py [--seconds 600] [--readers 4] [--faults 0.05] [--workers 2]

The quota is a third of the dataset. Every 100 ms the cache's files are counted on disk, every second memory and
descriptors are noted. Prints one JSON line for each tenth of the run and then the verdict; exits 1 where a byte was
wrong, the quota was exceeded, memory grew by more than 10 % after the first fifth, or descriptors did.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks._server import Serving  # noqa: E402
from tests.benchmarks.soak_stream import held  # noqa: E402
from tests.benchmarks.stress_kill import FILES, RECORD, SIZE, Readers, dataset, origin, rotten  # noqa: E402

LOOK = 0.1
GROWTH, DESCRIPTORS = 1.10, 16
LOOKS = 4
"""A walk over the files counts one twice that moves meanwhile: only what several in a row see is over the quota."""
LEAVING = 0.2


@dataclass
class Watch:
    cache: Path
    quota: int
    rss: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    most: int = 0
    looks: int = 0

    def note(self, server: Serving) -> None:
        found = server.held()
        self.rss.append(found["MiB"])
        self.descriptors.append(found["descriptors"])

    def look(self) -> None:
        seen = held(self.cache)
        for _ in range(LOOKS):
            if seen <= self.quota:
                break
            seen = min(seen, held(self.cache))
        self.most, self.looks = max(self.most, seen), self.looks + 1

    def verdict(self) -> dict[str, object]:
        """Compares the run's last fifth with its second one."""
        fifth = max(1, len(self.rss) // 5)
        facts: dict[str, object] = {"looks": self.looks, "most on disk / quota": round(self.most / self.quota, 4)}
        for name, values in (("MiB", self.rss), ("descriptors", self.descriptors)):
            early, late = values[fifth : 2 * fifth] or values, values[-fifth:]
            facts[name] = {"early": statistics.median(early), "late": statistics.median(late), "most": max(values)}
        return facts

    def grew(self) -> bool:
        fifth = max(1, len(self.rss) // 5)
        early, late = slice(fifth, 2 * fifth), slice(-fifth, None)
        more = statistics.median(self.rss[late]) > GROWTH * statistics.median(self.rss[early])
        left = statistics.median(self.descriptors[late]) > statistics.median(self.descriptors[early]) + DESCRIPTORS
        return more or left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--faults", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        far, near = Path(scratch) / "far", Path(scratch) / "near"
        readers, quota = Readers(dataset(far)), FILES * SIZE // 3
        watch = Watch(near / "cache", quota)
        with origin("_faulty.py", far, "--faults", str(o.faults), "--seed", str(o.seed)) as url:
            options = ["--origin", url, "--quota", str(quota), "--workers", str(o.workers), "--origin-timeout", "5"]
            with Serving(near, *options, "--access-log", "off", stderr=(near.parent / "log").open("wb")) as server:
                readers.port = server.port
                server.get(RECORD)
                with readers.reading(o.readers, o.seed, LEAVING):
                    _watched(server, watch, readers, o.seconds)
        damaged = rotten(near / "cache")
        log = (near.parent / "log").read_text()
    bugs = log.count("a bug") + log.count("Traceback")
    facts = {**_facts(readers), **watch.verdict(), "rotten block files": len(damaged), "bugs in the log": bugs}
    print("\n".join(readers.wrong[:20]) + log[-3000:] * bool(bugs), file=sys.stderr)
    print(json.dumps({"verdict": facts}), flush=True)
    sys.exit(bool(readers.wrong or damaged or bugs or watch.grew() or watch.most > quota))


def _watched(server: Serving, watch: Watch, readers: Readers, seconds: float) -> None:
    began = time.monotonic()
    noted, told = began, began
    while (now := time.monotonic()) < began + seconds:
        watch.look()
        if now - noted >= 1.0:
            watch.note(server)
            noted = now
        if now - told >= seconds / 10:
            print(json.dumps({"s": round(now - began), **_facts(readers), **server.held()}), flush=True)
            told = now
        time.sleep(LOOK)


def _facts(readers: Readers) -> dict[str, object]:
    return {
        "right": readers.right,
        "GB compared": round(readers.bytes / 1e9, 2),
        "cut off": readers.broken,
        "refused": readers.refused,
        "wrong": len(readers.wrong),
    }


if __name__ == "__main__":
    main()
