"""Choosing samples: opening a selection over a synthetic split, and the time of one step of each kind of order.

    python tests/benchmarks/bench_select.py [--samples 1281167] [--batch 1024] [--rounds 9]

Opening: `part` and `max_samples` from key numbers, `where` from a Parquet index beside the same filter read by pandas.
Steps: batches from random places of an epoch (as after a resume) and in order, beside torch's samplers giving as many
indices. Kinds alternate within a round; medians are printed, one JSON line each. No image is read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow.dataset  # noqa: F401 - an import is no part of what is timed
import torch
from torch.utils.data import RandomSampler, WeightedRandomSampler

from datahub.loader.schedule import Plan, Schedule
from datahub.loader.topology import Topology
from datahub.order import OrderOptions, cut_blocks, keyhash
from datahub.order.bitmap import Bitmap
from datahub.order.mixture import Member, Mixture
from datahub.order.population import Blocks, Population
from datahub.order.strata import Strata
from datahub.store import index
from datahub.store.where import parse

CLASSES = 1000
WHERE = "label in (1, 2) and width >= 256"


def split_index(folder: Path, samples: int) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(0)
    labels, rows = rng.integers(0, CLASSES, samples), np.arange(samples)
    columns = {
        "key": [f"train-{row:09d}" for row in range(samples)],
        "source": [f"n{row % CLASSES:08d}/{row}.JPEG" for row in range(samples)],
        **dict.fromkeys(("shard", "image_offset", "image_size", "label_offset", "label_size"), rows),
        "label": labels,
        **{name: rng.integers(100, 900, samples) for name in ("width", "height")},
        "format": ["jpeg"] * samples,
        "sha256": [f"{row * 0x9E3779B97F4A7C15 % (1 << 64):064x}" for row in range(samples)],
    }
    index.write(folder / "index.parquet", columns)
    return folder / "index.parquet", labels


def openings(path: Path, samples: int) -> dict[str, Callable[[], Any]]:
    return {
        "part=(0, 0.9)": lambda: Bitmap(keyhash.within(np.arange(samples), "train", [(0.0, 0.9)])),
        "max_samples=100000": lambda: keyhash.first(np.arange(samples), "train", 100_000),
        f"where={WHERE!r}": lambda: Bitmap(index.meets(path, parse(WHERE, index.schema(path)))),
        "the same filter, pandas on its two columns": lambda: by_pandas(path),
        "the same filter, pandas on the whole index": lambda: pandas.read_parquet(path).query(WHERE),
    }


def by_pandas(path: Path) -> Any:
    return pandas.read_parquet(path, columns=["label", "width"]).query(WHERE)


def schedule(population: Population | None, samples: int, batch: int, options: OrderOptions) -> Schedule:
    shards = [samples // 100] * 99 + [samples - samples // 100 * 99]
    return Schedule(Plan(shards, 1000, 0, True, options, batch, True, False, Topology(), population))


def schedules(labels: np.ndarray, samples: int, batch: int) -> dict[str, Schedule]:
    edges, every = cut_blocks([samples // 100] * 100, 1000), OrderOptions()
    kept = Bitmap(np.random.default_rng(1).random(int(edges[-1])) < 0.3)
    halves = [Member(name, Blocks(edges), name) for name in "ab"]
    rounded = np.random.default_rng(2).integers(1, 20, CLASSES).tolist()
    return {
        "whole": schedule(None, samples, batch, every),
        "filtered to 30 %": schedule(Blocks(edges, kept), samples, batch, every),
        "whole, 8 lanes, window 32": schedule(None, samples, batch, OrderOptions(32, 8)),
        "mix of two": schedule(Mixture(halves, [700, 300], "longest"), samples, batch, every),
        "mix of two, one filtered to 30 %": schedule(
            Mixture([halves[0], Member("kept", Blocks(edges, kept), "kept")], [700, 300], "longest"),
            samples,
            batch,
            every,
        ),
        "mix of two, 8 lanes, window 32": schedule(
            Mixture(halves, [700, 300], "longest"), samples, batch, OrderOptions(32, 8)
        ),
        "balanced, 3 classes": schedule(Strata(labels % 3, [1] * 3, "size"), samples, batch, every),
        f"balanced, {CLASSES} classes": schedule(Strata(labels, [1] * CLASSES, "size"), samples, batch, every),
        f"weighted, {CLASSES} classes": schedule(Strata(labels, rounded, "size"), samples, batch, every),
    }


def in_order(made: Schedule, epoch: int, count: int) -> float:
    """Milliseconds a step, over ``count`` steps one after the other, the first one left out."""
    batch = made.plan.batch
    made.step(epoch, 0)
    began = time.perf_counter()
    for step in range(1, count + 1):
        made.step(epoch, step * batch)
    return (time.perf_counter() - began) * 1e3 / count


def cold(made: Schedule, epoch: int, _: int) -> float:
    """Milliseconds of one step at 90 % of an epoch that was never asked for."""
    began = time.perf_counter()
    made.step(epoch, made.size * 9 // 10 // made.plan.batch * made.plan.batch)
    return (time.perf_counter() - began) * 1e3


def sampled(sampler: Iterator[int], batch: int, count: int) -> float:
    """Milliseconds a batch of indices, the epoch's own setup left out."""
    next(sampler)
    began = time.perf_counter()
    for _ in range(count):
        torch.tensor(list(islice(sampler, batch)))
    return (time.perf_counter() - began) * 1e3 / count


def show(what: str, times: list[float]) -> None:
    found = {"median": round(statistics.median(times), 3), "most": round(max(times), 3)}
    print(json.dumps({"figure": what, "ms": found}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    o = parser.parse_args()
    times: dict[str, list[float]] = {}

    def note(what: str, spent: float) -> None:
        times.setdefault(what, []).append(spent)

    with tempfile.TemporaryDirectory() as folder:
        path, labels = split_index(Path(folder), o.samples)
        for _ in range(o.rounds):
            for name, call in openings(path, o.samples).items():
                began = time.perf_counter()
                call()
                note(f"open: {name}", (time.perf_counter() - began) * 1e3)
    made = schedules(labels, o.samples, o.batch)
    weights = torch.from_numpy(1.0 / np.bincount(labels, minlength=CLASSES)[labels])
    for epoch in range(o.rounds):
        for name, each in made.items():
            note(f"first step at 90 %: {name}", cold(each, epoch, 0))
            note(f"step in order: {name}", in_order(each, epoch, 100))
        began = time.perf_counter()
        peer = iter(WeightedRandomSampler(weights, o.samples))
        next(peer)
        note("epoch's setup: torch WeightedRandomSampler", (time.perf_counter() - began) * 1e3)
        note("batch: torch WeightedRandomSampler", sampled(peer, o.batch, 100))
        note("batch: torch RandomSampler", sampled(iter(RandomSampler(range(o.samples))), o.batch, 100))
    for what, found in times.items():
        show(what, found)


if __name__ == "__main__":
    main()
