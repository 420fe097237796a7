"""The order formula: positions a second, what an epoch's start costs, and a simulated job.

    python tests/benchmarks/bench_order.py [--samples 1281167] [--ranks 64]

The peer is what torch's DistributedSampler does at the start of an epoch on every rank: a whole random permutation as a
Python list. The simulation asks every rank of a job for every batch and checks that each sample comes exactly once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler

from datahub.order import EpochOrder, OrderOptions, Permutation, cut_blocks, share_of

SHARD, BLOCK = 8192, 1000


def seconds(call: Callable[[], Any], repeat: int = 3) -> float:
    best = float("inf")
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def report(what: str, **facts: Any) -> None:
    print(json.dumps({"of": what, **facts}))


def edges(samples: int) -> np.ndarray:
    return cut_blocks([SHARD] * (samples // SHARD) + [samples % SHARD], BLOCK)


def throughput(samples: int, batch: int) -> None:
    everything = np.arange(min(samples, 1 << 21))
    permutation = Permutation(samples, "bench")
    print(
        json.dumps(
            {"of": "permutation", "positions_per_s": round(len(everything) / seconds(lambda: permutation(everything)))}
        )
    )
    for window in ("all", 64):
        order = EpochOrder(edges(samples), seed=0, epoch=0, options=OrderOptions(window))
        spent = seconds(lambda order=order: order.sample(everything))
        batch_spent = seconds(lambda order=order: order.sample(order.slots(batch, 7 * batch)[0]), 50)
        rate = round(len(everything) / spent)
        report("order", window=window, positions_per_s=rate, batch_us=round(batch_spent * 1e6))


def epoch_start(samples: int, ranks: int) -> None:
    ours = seconds(lambda: EpochOrder(edges(samples), seed=0, epoch=3).sample([0]))
    large = seconds(lambda: EpochOrder(edges(10**9), seed=0, epoch=3).sample([0]), 1)
    sampler = DistributedSampler(torch.empty(samples, 0), num_replicas=ranks, rank=0)  # type: ignore[arg-type]
    peer = seconds(lambda: next(iter(sampler)), 1)
    print(
        json.dumps(
            {"of": "epoch start", "datahub_ms": round(ours * 1e3, 2), "distributed_sampler_ms": round(peer * 1e3, 1)}
        )
    )
    print(json.dumps({"of": "epoch start, 10^9 samples", "datahub_ms": round(large * 1e3)}))


def simulate(samples: int, ranks: int, batch: int) -> None:
    began = time.perf_counter()
    order = EpochOrder(edges(samples), seed=1, epoch=2, options=OrderOptions(64, 8))
    counts = np.zeros(samples, np.uint8)
    steps = order.steps(batch)
    for step in range(steps):
        for rank in range(ranks):
            line, valid = order.slots(batch, step * batch, *share_of(batch, rank, ranks))
            np.add.at(counts, order.sample(line[valid]), 1)
    exact = bool((counts == 1).all())
    spent = time.perf_counter() - began
    print(
        json.dumps(
            {"of": "simulation", "ranks": ranks, "steps": steps, "exactly_once": exact, "seconds": round(spent, 1)}
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8192)
    o = parser.parse_args()
    throughput(o.samples, 512)
    epoch_start(o.samples, o.ranks)
    simulate(o.samples, o.ranks, o.batch)


if __name__ == "__main__":
    main()
