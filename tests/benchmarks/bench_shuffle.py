"""How well an epoch is shuffled: ours in windows of several sizes, webdataset's shuffle buffer, a full permutation.

    python tests/benchmarks/bench_shuffle.py [--samples 1281167] [--classes 1000] [--buffers 1000 5000 10000]

webdataset reads real shards of so many samples without content, all shards shuffled, then `.shuffle(buffer)`, one
worker; what is looked at is the stored position of each sample, in the order in which they come. One JSON line each:

- serial: correlation of the stored positions of successive samples (a full permutation: 0).
- rank: correlation of where a sample is stored and where it comes (0).
- neighbours: of samples stored side by side, the share that come in one batch (batch / samples).
- classes: distinct classes in a batch of 1,024, mean and 5th percentile, were the samples stored sorted by class as
  published, and in datahub's packed order, a keyed permutation of that.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import webdataset
from numpy.typing import NDArray

from datahub.order import EpochOrder, OrderOptions, Permutation, cut_blocks

Int = NDArray[np.int64]
BATCH, BLOCK = 1024, 1000
SHARD = 2283
"""Samples of a shard: 256 MB of ImageNet."""
OURS: Sequence[tuple[int | str, int]] = (("all", 1), (8, 1), (64, 1), (256, 1), (8, 8), (64, 8))
"""(window, lanes)."""


def shards_of(samples: int) -> list[int]:
    return [min(SHARD, samples - first) for first in range(0, samples, SHARD)]


def ours(samples: int, window: int | str, lanes: int) -> Int:
    """Stored positions in the order of an epoch."""
    options = OrderOptions(window, lanes)  # type: ignore[arg-type]
    order = EpochOrder(cut_blocks(shards_of(samples), BLOCK), seed=0, epoch=0, options=options)
    batches = (order.slots(BATCH, step * BATCH) for step in range(order.steps(BATCH)))
    return order.sample(np.concatenate([line[valid] for line, valid in batches]))


def write_shards(samples: int, folder: Path) -> list[str]:
    """Shards whose samples hold nothing but their position, as their key."""
    paths, first = [], 0
    for number, count in enumerate(shards_of(samples)):
        paths.append(str(folder / f"train-{number:06d}.tar"))
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for position in range(first, first + count):
                tar.addfile(tarfile.TarInfo(f"{position:09d}.cls"), io.BytesIO())
        first += count
    return paths


def buffered(paths: list[str], buffer: int) -> Iterator[int]:
    """Stored positions as webdataset gives them."""
    data = webdataset.WebDataset(paths, shardshuffle=len(paths), nodesplitter=None, seed=0)
    for sample in data.shuffle(buffer, rng=random.Random(0)):
        yield int(sample["__key__"])


def labels(samples: int, classes: int) -> dict[str, Int]:
    """The class at each stored position: sorted, classes of uneven size; and as packed."""
    sizes = np.random.default_rng(0).integers(732, 1301, classes)
    edges = np.cumsum(sizes) * samples // sizes.sum()
    by_class = np.searchsorted(edges, np.arange(samples), "right")
    return {"sorted": by_class, "packed": by_class[Permutation(samples, "pack", "train")(np.arange(samples))]}


def correlation(a: Int, b: Int) -> float:
    return round(float(np.corrcoef(a, b)[0, 1]), 4)


def neighbours(positions: Int) -> float:
    """Of pairs stored side by side, the share in one batch."""
    batch = np.empty_like(positions)
    batch[positions] = np.arange(len(positions)) // BATCH
    return round(float(np.mean(batch[1:] == batch[:-1])), 5)


def classes_in_batches(found: Int) -> dict[str, float]:
    whole = np.sort(found[: len(found) // BATCH * BATCH].reshape(-1, BATCH), axis=1)
    distinct = 1 + (np.diff(whole, axis=1) != 0).sum(1)
    return {"mean": round(float(distinct.mean()), 1), "p5": round(float(np.percentile(distinct, 5)), 1)}


def show(name: str, positions: Int, stored: dict[str, Int], seconds: float) -> None:
    samples = len(next(iter(stored.values())))
    assert np.array_equal(np.sort(positions), np.arange(samples)), "an epoch holds every sample once"
    facts = {
        "serial": correlation(positions[:-1], positions[1:]),
        "rank": correlation(positions, np.arange(samples)),
        "neighbours": neighbours(positions),
        "classes": {order: classes_in_batches(label[positions]) for order, label in stored.items()},
    }
    print(json.dumps({"order": name, "samples": samples, **facts, "seconds": round(seconds, 1)}), flush=True)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--buffers", type=int, nargs="*", default=[1000, 5000, 10_000])
    o = parser.parse_args(given)
    stored = labels(o.samples, o.classes)
    show("full permutation", np.random.default_rng(0).permutation(o.samples), stored, 0.0)
    for window, lanes in OURS:
        began = time.perf_counter()
        positions = ours(o.samples, window, lanes)
        show(f"datahub, window={window}, lanes={lanes}", positions, stored, time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_shards(o.samples, Path(folder)) if o.buffers else []
        for buffer in o.buffers:
            began = time.perf_counter()
            positions = np.fromiter(buffered(paths, buffer), np.int64)
            show(f"webdataset, .shuffle({buffer})", positions, stored, time.perf_counter() - began)


if __name__ == "__main__":
    main()
