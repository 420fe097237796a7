"""Encoded bytes held in memory, beside streaming from a disk whose pages are cached and from one whose pages are not.

    python tests/benchmarks/bench_encoded.py --images DIR [--samples 4096] [--rounds 5] [--work DIR] [--only bytes]

Packs ``samples`` images, those of DIR over and over, distinct by a comment. `bytes`: batches of encoded images, of each
of which the consumer takes a CRC-32. `decode`: random-resized crops of 224 as uint8 batches of 64. Each in three ways,
an epoch after the other in turn: `cold` streams after the kernel was told to drop the shards' pages (and says which
part of them it still has), `warm` streams after an epoch has, `held` is ``residency="encoded"``. Prints JSON: samples a
second as medians with all rounds, seconds and bytes of filling, and the ratios. ``--work`` keeps the packed set, and
says on which disk it lies.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks._ilsvrc import distinct  # noqa: E402 - the checkout is not installed

REF, BATCH = "heldbench@1", 64


def packed(options: argparse.Namespace) -> Any:
    from datahub.core.errors import NotInStore
    from datahub.core.settings import Settings
    from datahub.loader.opening import open_dataset
    from datahub.pack.authoring import Writer

    settings = Settings(home=options.work / "home")
    try:
        open_dataset(REF, settings)
    except NotInStore:
        files = sorted(options.images.rglob("*.[jJ][pP]*[gG]"))
        with Writer(REF, {"image": "image", "label": "label"}, settings=settings) as writer:
            for row in range(options.samples):
                data = distinct(files[row % len(files)].read_bytes(), row // len(files))
                writer.write(split="train", source=str(row), image=data, label=f"c{row % 10}")
    return settings


def loader(settings: Any, task: str, residency: str) -> Any:
    import datahub

    shown = {"fields": ("encoded", "label")} if task == "bytes" else {"fields": ("image", "label")}
    if task == "decode":
        t = datahub.transforms
        shown["transform"] = t.Compose([t.RandomResizedCrop(224), t.RandomHorizontalFlip()])
    return datahub.StreamingLoader(
        REF, batch_size=BATCH, shuffle=True, num_workers=2, residency=residency, settings=settings, **shown
    )


def rate(batches: Iterable[Any]) -> float:
    began, seen = time.perf_counter(), 0
    for first, _ in batches:
        seen += len(first)
        if isinstance(first, list):
            for data in first:
                zlib.crc32(data)
    return seen / (time.perf_counter() - began)


def dropped(shards: Iterable[Path]) -> float:
    """Tell the kernel that the shards' pages are not needed; the part of them that it keeps all the same."""
    kept = pages = 0
    for shard in shards:
        descriptor = os.open(shard, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        there = cached(shard)
        kept, pages = kept + int(there.sum()), pages + len(there)
    return kept / max(1, pages)


def cached(path: Path) -> np.ndarray:
    """Of each page of a file, whether it is in memory (mincore(2))."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        found = (ctypes.c_ubyte * -(-len(memory) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(memory)
        call = ctypes.CDLL(None, use_errno=True).mincore
        failed = call(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(memory)), found)
        del start
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return np.frombuffer(found, np.uint8) & 1


def measured(settings: Any, task: str, rounds: int) -> dict[str, Any]:
    with loader(settings, task, "stream") as streamed, loader(settings, task, "encoded") as held:
        shards = streamed.split.shards
        size = sum(shard.stat().st_size for shard in shards)
        left = dropped(shards)
        began = time.perf_counter()
        iterator: Iterator[Any] = iter(held)
        filling = time.perf_counter() - began
        rate(iterator)
        found: dict[str, list[float]] = {"cold": [], "warm": [], "held": []}
        for _ in range(rounds):
            left = max(left, dropped(shards))
            found["cold"].append(rate(streamed))
            found["warm"].append(rate(streamed))
            found["held"].append(rate(held))
    medians = {way: statistics.median(rates) for way, rates in found.items()}
    return {
        "task": task, "megabytes": round(size / 1e6), "filling_s": round(filling, 2), "kept_by_the_kernel": left,
        **{f"{way}_samples_s": round(each) for way, each in medians.items()},
        "rounds": {way: [round(each) for each in rates] for way, rates in found.items()},
        "held_of_cold": round(medians["held"] / medians["cold"], 2),
        "held_of_warm": round(medians["held"] / medians["warm"], 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", choices=("bytes", "decode"), action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        options.work = options.work or Path(name)
        settings = packed(options)
        for task in options.only or ("bytes", "decode"):
            print(json.dumps(measured(settings, task, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
