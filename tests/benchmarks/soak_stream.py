"""A day of streaming in minutes: 100,000 batches over HTTP through a cache that evicts, memory and descriptors watched.

    python tests/benchmarks/soak_stream.py [--batches 100000] [--samples 40000] [--share 0.3]

Tiny PNGs, decoded; the origin is a process of its own on this machine, the cache holds ``share`` of the dataset, and
the order has a window of one block, so that every epoch evicts and fetches. Every 1,000 batches the resident memory and
the open descriptors of the process and its threads are noted, and a state is taken; every epoch is checked to hold each
sample once. Prints one JSON line for each tenth of the run and then the verdict; exits 1 where memory grew by more than
5 % after the first tenth, a descriptor was left open, or the cache was ever over its limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import datahub
from datahub.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
EVERY = 1000


@dataclass
class Watch:
    """What the process held, noted now and then."""

    cache: Path
    process: psutil.Process = field(default_factory=psutil.Process)
    rss: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    most: int = 0

    def note(self) -> None:
        self.rss.append(self.process.memory_info().rss / 2**20)
        self.descriptors.append(self.process.num_fds())
        self.threads.append(threading.active_count())
        self.most = max(self.most, held(self.cache))


def held(cache: Path) -> int:
    """Bytes of the cache's blocks, whole and being filled."""
    total = 0
    for folder in ("blocks", "filling"):
        for path in cache.rglob(f"{folder}/**/*"):
            try:
                total += path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:  # evicted while it was looked at
                continue
    return total


def pack(home: Path, samples: int) -> Path:
    from tests.benchmarks.bench_resume import tiny

    images, settings = tiny(), Settings(home=home)
    with datahub.Writer("soaked@1", settings=settings) as writer:
        for number in range(samples):
            writer.write(image=images[number % len(images)], label=number % 1000)
    return datahub.open("soaked@1", settings).path


def soak(o: argparse.Namespace, url: str, cache: Path, limit: int) -> Watch:
    watch, count = Watch(cache), 0
    loader = datahub.StreamingLoader(
        "soaked@1",
        source=url,
        batch_size=o.batch,
        shuffle=True,
        order=datahub.Order(window=1),
        num_workers=2,
        residency="stream",
        cache_dir=cache,
        cache_limit=limit,
        settings=Settings(home=cache.parent / "far"),
        timeout=120,
    )
    with loader:
        began = time.perf_counter()
        while count < o.batches:
            count = epoch(loader, watch, count, o)
            if len(watch.rss) and count % (o.batches // 10) < len(loader):
                report(watch, count, began)
    return watch


def epoch(loader: Any, watch: Watch, count: int, o: argparse.Namespace) -> int:
    """One epoch, each sample once; the number of batches until now."""
    seen = 0
    for batch in loader:
        seen += int(batch["index"].sum())
        count += 1
        if count % EVERY == 0:
            watch.note()
            loader.state_dict()
            loader.stats()
    if seen != o.samples * (o.samples - 1) // 2:
        raise SystemExit(f"an epoch held other samples than {o.samples} once each")
    return count


def report(watch: Watch, count: int, began: float) -> None:
    facts = {"batches": count, "batches_per_s": round(count / (time.perf_counter() - began))}
    facts |= {"rss_mib": round(watch.rss[-1], 1), "descriptors": watch.descriptors[-1], "threads": watch.threads[-1]}
    print(json.dumps(facts), flush=True)


def verdict(watch: Watch, limit: int) -> bool:
    """The first tenth warms up; its last note is what the rest is held to."""
    first = len(watch.rss) // 10
    grown = max(watch.rss[first:]) / watch.rss[first]
    opened = max(watch.descriptors[first:]) - watch.descriptors[first]
    good = grown <= 1.05 and opened <= 2 and watch.most <= limit
    facts = {"figure": "soak", "rss_growth": round(grown, 3), "descriptors_more": opened, "threads": watch.threads[-1]}
    print(json.dumps({**facts, "cache_limit": limit, "cache_most": watch.most, "good": good}))
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.3, help="of the dataset that the cache holds")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pack(Path(scratch, "home"), o.samples)
        limit = int(sum(path.stat().st_size for path in folder.glob("*.tar")) * o.share)
        command = [sys.executable, str(Path(__file__).with_name("_origin.py")), str(folder)]
        origin = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert origin.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(origin.stdout.readline())}"
            watch = soak(o, url, Path(scratch, "cache"), limit)
        finally:
            origin.kill()
            origin.wait()
        sys.exit(0 if verdict(watch, limit) else 1)


if __name__ == "__main__":
    main()
