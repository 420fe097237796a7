"""Streaming over HTTP with added latency, from a cache of half the dataset, beside the same loader on local disk.

Both decode JPEGs and crop them at random to 224 with two worker threads, in turns of ``--batches`` batches; the origin
is a process of its own on the same machine. The clock runs once the remote loader has been through one epoch.

    python tests/benchmarks/bench_remote.py --images DIR [--samples 12000] [--latency 0.02] [--rounds 3] [--work DIR]

``--work`` keeps the packed dataset for another run. Prints one JSON line a measurement, then the ratio and the traffic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms import v2

import datahub
from datahub.core.settings import Settings

REF, BATCH, WORKERS = "remotebench", 64, 2


def packed(images: Path, samples: int, work: Path) -> Settings:
    """A store that holds the images, repeated until there are so many."""
    settings = Settings(home=work / "home")
    if not (settings.datasets / REF).exists():
        files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        folder = work / "images" / "some"
        folder.mkdir(parents=True)
        for number in range(samples):
            (folder / f"{number:06d}.jpg").symlink_to(files[number % len(files)].resolve())
        datahub.pack(f"imagefolder:{folder.parent}", REF, settings=settings)
    return settings


def turns(loader: Any, batches: int) -> Iterator[float]:
    """Images a second of so many batches at a time, for ever."""
    endless = (batch for _ in iter(int, 1) for batch in loader)
    while True:
        began, count = time.perf_counter(), 0
        for _ in range(batches):
            count += len(next(endless)["image"])
        yield count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--window", default="1", help="blocks shuffled together, or all")
    parser.add_argument("--batches", type=int, default=90)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    o = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work = o.work or Path(scratch)
        settings = packed(o.images, o.samples, work)
        folder = datahub.open(REF, settings).path
        size = sum(path.stat().st_size for path in folder.glob("*.tar"))
        origin = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("_origin.py")), str(folder), "--latency", str(o.latency)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert origin.stdout is not None
        url = f"http://127.0.0.1:{int(origin.stdout.readline())}"
        try:
            measure(o, settings, url, size, Path(scratch))
        finally:
            origin.kill()
            origin.wait()


def measure(o: Any, settings: Settings, url: str, size: int, scratch: Path) -> None:
    crop = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()])
    window = o.window if o.window == "all" else int(o.window)
    arguments = {"batch_size": BATCH, "shuffle": True, "num_workers": WORKERS, "transform": crop, "drop_last": True}
    arguments |= {"order": datahub.Order(window=window), "timeout": 60}
    local = datahub.StreamingLoader(REF, settings=settings, **arguments)
    remote = datahub.StreamingLoader(
        REF,
        source=url,
        cache_dir=scratch / "cache",
        cache_limit=size // 2,
        settings=Settings(home=scratch / "far"),
        **arguments,
    )
    streams = {"local": turns(local, o.batches), "remote": turns(remote, o.batches)}
    warm_up(remote, streams["remote"], o.batches)
    rates: dict[str, list[float]] = {"local": [], "remote": []}
    for _ in range(o.rounds):
        for name, stream in streams.items():
            rates[name].append(next(stream))
    for name, found in rates.items():
        print(json.dumps({"loader": name, "images_per_s": [round(each) for each in found]}))
    held = sum(path.stat().st_size for path in (scratch / "cache" / "blocks").rglob("*") if path.is_file())
    ratio = statistics.median(rates["remote"]) / statistics.median(rates["local"])
    facts = {"figure": "remote, times local", "ratio": round(ratio, 3), "dataset": size, "cache": held}
    print(json.dumps({**facts, "latency": o.latency, "window": o.window}))
    local.close()
    remote.close()


def warm_up(loader: Any, stream: Iterator[float], batches: int) -> None:
    """One epoch, rounded down to whole turns."""
    for _ in range(len(loader) // batches):
        next(stream)


if __name__ == "__main__":
    main()
