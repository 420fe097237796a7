"""Two training jobs behind one cache server whose origin is slow; what announced orders save where the disk is small.

Loaders are processes of their own with a worker thread each: JPEGs are decoded and cropped at random to 224. The origin
sends ``--rate`` bytes a second to all together.

    python tests/benchmarks/bench_jobs.py --images DIR [--repeat 16] [--rounds 3] [--only figure|foresight] [--work DIR]

``figure``: job one reads an epoch from the origin, job two then reads nothing from it; then both at once, warm, beside
the same two on local disk, in turns, with the CPU seconds of all of them for 1,000 images; with clients that keep
everything (the default), two fifths, a tenth, and nothing. ``foresight``: the server's cache holds half of the dataset,
the clients' a tenth; bytes from the origin in each epoch of two jobs by policy lru, by policy epoch without
announcements, and with them.
``--work`` keeps the packed dataset for another run. Prints one JSON line a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import datahub
from datahub.core.settings import Settings
from tests.benchmarks._server import Serving

REF, VERSION = "jobsbench", "1.0/published"
BATCH = 64
DEADLINE = 300.0
JOB = """
import json, sys, time
import torch
from torchvision.transforms import v2
import datahub
from datahub.core.settings import Settings
from pathlib import Path

torch.set_num_threads(1)
o = json.loads(sys.argv[1])
crop = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()])
settings = Settings(home=Path(o["home"]), announce=o["announce"])
window = datahub.Order(window=o["window"])
more = {} if o["source"] is None else {"source": o["source"], "cache_dir": o["cache"], "cache_limit": o["limit"]}
loader = datahub.StreamingLoader(
    o["ref"], batch_size=64, shuffle=True, seed=o["seed"], num_workers=1, transform=crop, order=window, timeout=120,
    fields=("image",) if o["decode"] else ("encoded",), settings=settings, **more,
)
print("ready", flush=True)
for line in sys.stdin:
    began, count = time.perf_counter(), 0
    for batch in loader:
        count += len(batch[0])
        if o["pace"]:
            time.sleep(max(0.0, began + count / o["pace"] - time.perf_counter()))
    print(json.dumps({"images": count, "seconds": time.perf_counter() - began}), flush=True)
loader.close()
"""


class Job:
    """A loader in a process of its own, which reads an epoch when it is told."""

    def __init__(self, settings: Settings, source: str | None, cache: Path, **more: Any) -> None:
        facts = {
            "home": str(settings.home),
            "ref": f"{REF}@{VERSION}",
            "source": source,
            "cache": str(cache),
            "limit": None,
        }
        facts |= {"announce": True, "window": 4, "decode": True, "seed": 0, "pace": 0} | more
        command = [sys.executable, "-c", JOB, json.dumps(facts)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        assert self._process.stdout is not None
        line = "ready\n" if self._ready else self._process.stdout.readline()
        assert line == "ready\n", line
        self._ready = True

    def begin(self) -> None:
        self.ready()
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def ended(self) -> float:
        """Images a second of the epoch."""
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        return float(said["images"]) / float(said["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(DEADLINE)


def packed(images: Path, repeat: int, work: Path) -> Settings:
    """A store that holds the images, each so many times."""
    settings = Settings(home=work / "home")
    if not (settings.datasets / REF).exists():
        files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        folder = work / "images" / "some"
        folder.mkdir(parents=True)
        for number in range(repeat * len(files)):
            (folder / f"{number:06d}.jpg").symlink_to(files[number % len(files)].resolve())
        datahub.pack(f"imagefolder:{folder.parent}", REF, settings=settings)
    return settings


@contextmanager
def origin(folder: Path, rate: float) -> Iterator[str]:
    script = str(Path(__file__).with_name("_origin.py"))
    command = [sys.executable, script, str(folder), "--rate", str(rate), "--together"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def server(work: Path, url: str, *options: str) -> Iterator[Serving]:
    with tempfile.TemporaryDirectory(dir=work) as empty:
        more = ["--origin", url, "--cache-dir", f"{empty}/cache", "--scrub-rate", "0", "--access-log", f"{empty}/log"]
        with Serving(Path(empty) / "store", *more, *options) as found:
            yield found


def metric(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def from_origin(url: str) -> float:
    return metric(url, "datahub_origin_bytes_total")


def together(jobs: list[Job]) -> float:
    """Images a second of all of them, each through an epoch at once."""
    for each in jobs:
        each.ready()
    for each in jobs:
        each.begin()
    return sum(each.ended() for each in jobs)


def measured(jobs: list[Job], images: int, serving: Serving | None = None) -> tuple[float, float]:
    """`together`, and CPU seconds of the jobs and their server for 1,000 images."""
    processes = [psutil.Process(each.pid) for each in jobs] + ([] if serving is None else serving.all())
    before = sum(spent(each) for each in processes)
    rate = together(jobs)
    return rate, (sum(spent(each) for each in processes) - before) * 1000 / (images * len(jobs))


def spent(process: psutil.Process) -> float:
    found = process.cpu_times()
    return float(found.user + found.system)


def said(**facts: Any) -> None:
    print(json.dumps({name: round(v, 3) if isinstance(v, float) else v for name, v in facts.items()}), flush=True)


def figure(o: Any, settings: Settings, work: Path, size: int) -> None:
    folder = datahub.open(REF, settings).path.parents[2]
    images = len(datahub.open(REF, settings)["train"])
    cases = {"own": (None, 4), "part": (size * 2 // 5, 1), "small": (size // 10, 4), "none": (1, 4)}
    for clients, (limit, window) in cases.items():
        if o.clients not in (None, clients):
            continue
        with origin(folder, o.rate) as slow, server(work, slow) as serving, tempfile.TemporaryDirectory(dir=work) as at:
            far = Settings(home=Path(at) / "far")
            served = [
                Job(far, serving.url, Path(at) / f"cache{n}", seed=n, limit=limit, window=window, decode=not o.encoded)
                for n in range(2)
            ]
            if o.rate:
                cold, first = together(served[:1]), from_origin(serving.url)
                second, after = together(served[1:]), from_origin(serving.url)
                said(clients=clients, job="one, cold", images_per_s=cold, origin_bytes=first, dataset=size)
                said(clients=clients, job="two, after it", images_per_s=second, origin_bytes=after - first)
            else:
                said(clients=clients, job="both, cold, a fast origin", images_per_s=together(served))
                after = from_origin(serving.url)
            local = [Job(settings, None, Path(at), seed=n, window=window, decode=not o.encoded) for n in range(2)]
            together(local)
            pairs = [(measured(served, images, serving), measured(local, images)) for _ in range(o.rounds)]
            said(
                figure="both jobs, warm: through the server, times local disk", clients=clients,
                ratio=statistics.median(ours / theirs for (ours, _), (theirs, _) in pairs),
                ratio_by_cpu=statistics.median(theirs / ours for (_, ours), (_, theirs) in pairs),
                served=[round(ours) for (ours, _), _ in pairs], local=[round(theirs) for _, (theirs, _) in pairs],
                cpu_s_served=[round(ours, 3) for (_, ours), _ in pairs],
                cpu_s_local=[round(theirs, 3) for _, (_, theirs) in pairs],
                origin_bytes=from_origin(serving.url) - after,
            )  # fmt: skip
            for each in (*served, *local):
                each.close()


def foresight(o: Any, settings: Settings, work: Path, size: int) -> None:
    folder = datahub.open(REF, settings).path.parents[2]
    cases = (("lru", "lru", False), ("epoch", "epoch", False), ("announced", "epoch", True))
    for name, policy, announce in cases:
        if o.policy not in (None, name):
            continue
        options = ("--quota", str(size // 2), "--policy", policy)
        with (
            origin(folder, 0) as fast,
            server(work, fast, *options) as serving,
            tempfile.TemporaryDirectory(dir=work) as at,
        ):
            far = Settings(home=Path(at) / "far")
            more = {"limit": size // 10, "announce": announce, "decode": False, "pace": o.pace, "window": 1}
            jobs = [Job(far, serving.url, Path(at) / f"cache{n}", seed=n, **more) for n in range(2)]
            before, epochs = 0.0, []
            for _ in range(o.epochs):
                together(jobs)
                total = from_origin(serving.url)
                epochs.append(round((total - before) / size, 3))
                before = total
            said(
                policy=name, cache="half of the dataset", datasets_from_origin_in_each_epoch=epochs,
                prefetched=metric(serving.url, "datahub_prefetched_bytes_total") / size,
                waited_s=metric(serving.url, "datahub_job_wait_seconds_total"),
            )  # fmt: skip
            for each in jobs:
                each.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=16)
    parser.add_argument("--rate", type=float, default=50e6, help="figure: bytes a second of the origin; 0: no limit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pace", type=float, default=1000.0, help="images a second of each job in foresight")
    parser.add_argument(
        "--clients", choices=("own", "part", "small", "none"), help="figure: only with such caches of their own"
    )
    parser.add_argument("--policy", choices=("lru", "epoch", "announced"), help="foresight: only this one")
    parser.add_argument("--encoded", action="store_true", help="figure: hand out bytes, do not decode")
    parser.add_argument("--only", choices=("figure", "foresight"))
    parser.add_argument("--work", type=Path)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = o.work or Path(scratch)
        settings = packed(o.images, o.repeat, work)
        size = sum(path.stat().st_size for path in datahub.open(REF, settings).path.glob("*.tar"))
        began = time.monotonic()
        for name, measure in (("figure", figure), ("foresight", foresight)):
            if o.only in (None, name):
                measure(o, settings, work, size)
        said(seconds=time.monotonic() - began, dataset=size, cpus=os.cpu_count())


if __name__ == "__main__":
    main()
