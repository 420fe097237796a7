"""Webdataset shards without an index: the time to index them, and the pace afterwards beside the same images packed.

The shards are webdataset's ShardWriter's: images of ``--images`` repeated, each with ``.cls`` and ``.json``. They are
indexed on local disk and over loopback HTTP with added latency (the origin is a process of its own); for comparison
webdataset reads all samples of the same local shards once, in one process. Then two loaders deliver encoded bytes and
decoded batches in turns, one from the shards as they are, one from what ``datahub.pack`` made of them.

    python tests/benchmarks/bench_foreign.py --images DIR [--samples 12000] [--latency 0.02] [--rounds 5] [--work DIR]

``--work`` keeps what was made for another run. Prints one JSON line a figure.
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
import webdataset
from torchvision.transforms import v2

import datahub
from datahub.core.settings import Settings
from datahub.pack.own.webdatasets import expand

REF, BATCH, WORKERS = "foreignbench", 64, 2


def write(images: Path, samples: int, folder: Path) -> Path:
    """A thousand samples a shard."""
    if not folder.exists():
        files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        data = [(path.suffix.lower().lstrip(".").replace("jpeg", "jpg"), path.read_bytes()) for path in files]
        folder.mkdir(parents=True)
        pattern = str(folder / "train-%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=1000, maxsize=1 << 40, verbose=0) as writer:
            for number in range(samples):
                extension, content = data[number % len(data)]
                sample = {"__key__": f"{number:08d}", extension: content, "cls": number % 1000}
                writer.write({**sample, "json": {"number": number}})
    return folder


def index(source: str, scratch: Path, samples: int, what: str) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as home:
        began = time.perf_counter()
        found = datahub.open(REF, Settings(home=Path(home)), source=source)
        took = time.perf_counter() - began
        assert len(found["train"]) == samples
        began = time.perf_counter()
        datahub.open(REF, Settings(home=Path(home)), source=source)
        again = time.perf_counter() - began
    facts = {"figure": f"index, {what}", "seconds": round(took, 2), "seconds_per_100k": round(took * 1e5 / samples, 2)}
    print(json.dumps({**facts, "opened_again": round(again, 3)}), flush=True)


def read_by_webdataset(shards: list[str], samples: int, what: str) -> None:
    began = time.perf_counter()
    count = sum(1 for _ in webdataset.WebDataset(shards, shardshuffle=False, nodesplitter=None))
    took = time.perf_counter() - began
    assert count == samples
    facts = {"figure": f"webdataset reads all samples once, {what}", "seconds": round(took, 2)}
    print(json.dumps({**facts, "seconds_per_100k": round(took * 1e5 / samples, 2)}), flush=True)


def turns(loader: Any, batches: int) -> Iterator[float]:
    """Images a second of so many batches at a time, for ever."""
    endless = (batch for _ in iter(int, 1) for batch in loader)
    while True:
        began, count = time.perf_counter(), 0
        for _ in range(batches):
            count += len(next(endless)[0])
        yield count / (time.perf_counter() - began)


def pace(folder: Path, settings: Settings, o: Any, fields: tuple[str, ...], batches: int) -> None:
    crop = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()])
    arguments: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "num_workers": WORKERS, "drop_last": True}
    arguments |= {"fields": fields, "settings": settings, "residency": "stream"}
    if "image" in fields:
        arguments["transform"] = crop
    loaders = {
        "as they are": datahub.StreamingLoader(REF, source=folder, **arguments),
        "packed": datahub.StreamingLoader(REF, **arguments),
    }
    streams = {name: turns(loader, batches) for name, loader in loaders.items()}
    rates: dict[str, list[float]] = {name: [next(stream)][:0] for name, stream in streams.items()}
    for _ in range(o.rounds):
        for name, stream in streams.items():
            rates[name].append(next(stream))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ratio = statistics.median(a / b for a, b in zip(rates["as they are"], rates["packed"], strict=True))
    facts = {"figure": f"{fields[0]}s a second", **{name: round(each) for name, each in medians.items()}}
    print(json.dumps({**facts, "ratio": round(ratio, 3)}), flush=True)
    for loader in loaders.values():
        loader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path)
    o = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work = o.work or Path(scratch)
        folder = write(o.images, o.samples, work / f"shards-{o.samples}")
        settings = Settings(home=work / f"home-{o.samples}")
        if not (settings.datasets / REF).exists():
            datahub.pack(f"wds:{folder}", REF, settings=settings)
        index(str(folder), work, o.samples, "local")
        read_by_webdataset([str(path) for path in sorted(folder.glob("*.tar"))], o.samples, "local")
        over_http(folder, o, work)
        pace(folder, settings, o, ("encoded",), 160)
        pace(folder, settings, o, ("image",), 20)


def over_http(folder: Path, o: Any, scratch: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("_origin.py")), str(folder), "--latency", str(o.latency)]
    origin = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert origin.stdout is not None
    try:
        last = len(list(folder.glob("*.tar"))) - 1
        url = f"http://127.0.0.1:{int(origin.stdout.readline())}/train-{{000000..{last:06d}}}.tar"
        what = f"HTTP, {o.latency * 1000:.0f} ms"
        index(url, scratch, o.samples, what)
        read_by_webdataset(expand(url), o.samples, what)
    finally:
        origin.kill()
        origin.wait()


if __name__ == "__main__":
    main()
