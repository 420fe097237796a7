"""What announced orders save, in simulation at ImageNet's size: the cache's own policy over 34,000 blocks, no bytes.

Jobs read 1,281,167 samples in 562 shards, each in windows of an order of its own and all at one pace, through clients
that keep a window and ask for each block once an epoch. The cache holds half of the blocks.

    python tests/benchmarks/sim_jobs.py [--jobs 1 2 4] [--epochs 5] [--window 8]

Prints one JSON line for each policy and number of jobs: the share of reads that went to the origin after the second
epoch, and what the policy took for each eviction.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray

from datahub.serve.foresight import Layout, Reads, layout
from datahub.store.cache.policy import HOT, Entry, dispensable
from datahub.store.locate import LOCATE, encode
from datahub.store.record import ShardEntry, SplitEntry
from datahub.wire.messages import JobOrder

SAMPLES, SHARDS = 1_281_167, 562
Int = NDArray[np.int64]


def imagenet() -> Layout:
    counts = np.full(SHARDS, SAMPLES // SHARDS)
    counts[: SAMPLES % SHARDS] += 1
    sizes = np.random.default_rng(0).integers(60_000, 160_000, SAMPLES)
    base = np.cumsum(counts) - counts
    ends = np.concatenate([[0], np.cumsum(sizes + 1536)])
    rows = np.zeros(SAMPLES, LOCATE)
    rows["shard"] = np.repeat(np.arange(SHARDS), counts)
    rows["offset"] = ends[:-1] - ends[base][rows["shard"]] + 512
    rows["size"] = sizes
    entry = SplitEntry(
        samples=SAMPLES,
        shards=[ShardEntry(path=f"{number}.tar", samples=int(count)) for number, count in enumerate(counts)],
        block=1000, locate="locate", index="index", fingerprint="", histogram=[], stats=None,
    )  # fmt: skip
    return layout("train", entry, (ends[base + counts] - ends[base] + 10_240).tolist(), encode(rows))


def sequences(found: Layout, jobs: int, epochs: int, window: int) -> list[list[Int]]:
    """The blocks of each job's epochs, the first that is read first."""
    orders = [JobOrder(seed=seed, batch=1024, window=window) for seed in range(jobs)]
    firsts = [[Reads(found, order, epoch).first for epoch in range(epochs)] for order in orders]
    return [[np.argsort(each)[: int(np.isfinite(each).sum())] for each in job] for job in firsts]


def due_of(sequence: list[Int], at: int, blocks: int) -> NDArray[np.float64]:
    """Reads until each block is read by a job that has made ``at`` of them."""
    due = np.full(blocks, np.inf)
    begin = 0
    for epoch in sequence:
        end = begin + len(epoch)
        if end > at:
            when = np.arange(begin, end) - at
            late = when >= 0
            due[epoch[late]] = np.minimum(due[epoch[late]], when[late])
        begin = end
        if begin > at + 2 * len(epoch):
            break
    return due


def simulate(found: Layout, runs: list[list[Int]], policy: str, announced: bool) -> dict[str, object]:
    blocks = len(found.sizes)
    room = blocks // 2
    flat = [np.concatenate(epochs) for epochs in runs]
    held: dict[int, float] = {}
    missed = counted = evictions = 0
    took, steps = 0.0, len(flat[0])
    for at in range(steps):
        for number, job in enumerate(flat):
            block, now = int(job[at]), 1e6 + HOT * (at + number / len(flat)) / 50
            warm = at >= 2 * steps // len(runs[0])
            counted += warm
            if block not in held:
                missed += warm
                if len(held) >= room:
                    began = time.perf_counter()
                    due = np.min([due_of(run, at, blocks) for run in runs], axis=0) if announced else None
                    coming = {} if due is None else {f"{each}": float(due[each]) for each in held}
                    entries = [Entry(f"{each}", 1, "a", used) for each, used in held.items()]
                    for gone in dispensable(entries, (), now, lru=policy == "lru", due=coming)[: 1 + room // 64]:
                        del held[int(gone.key)]
                    took += time.perf_counter() - began
                    evictions += 1
            held[block] = now
    return {"from_origin": round(missed / counted, 3), "ms_an_eviction": round(1e3 * took / max(1, evictions), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--window", type=int, default=8)
    o = parser.parse_args()
    found = imagenet()
    for jobs in o.jobs:
        runs = sequences(found, jobs, o.epochs, o.window)
        for name, policy, announced in (("lru", "lru", False), ("epoch", "epoch", False), ("announced", "epoch", True)):
            facts = {"jobs": jobs, "policy": name, "blocks": len(found.sizes), "cache": "half"}
            print(json.dumps(facts | simulate(found, runs, policy, announced)), flush=True)


if __name__ == "__main__":
    main()
