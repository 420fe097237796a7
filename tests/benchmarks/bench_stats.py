"""What counting costs: small batches with the loader's counters, beside the same loader with counters that do nothing.

Also the price of one `loader.stats()` and of one batch by `loader.at`. Alternately in one run; medians.

    python tests/benchmarks/bench_stats.py [--ref mnist] [--batch 32] [--rounds 15]

The dataset must be in the store (``datahub fetch mnist``). Prints one JSON line a figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from itertools import islice
from typing import Any

import datahub
from datahub.loader.counters import Counters

NOTHING = nullcontext()


class Idle(Counters):
    """Counts nothing."""

    def add(self, name: str, amount: int) -> None: ...

    def timing(self, stage: str) -> Any:
        return NOTHING

    def asked(self, ready: int) -> None: ...

    def received(self) -> None: ...


def microseconds(loader: datahub.StreamingLoader, counters: Counters, steps: int) -> float:
    """Microseconds a batch, with ``counters`` in the loader."""
    loader._counters = loader._assembler._counters = counters
    loader.set_epoch(loader.epoch + 1)
    loop = iter(loader)
    next(loop)
    began = time.perf_counter()
    for _ in islice(loop, steps):
        pass
    spent = time.perf_counter() - began
    loop.close()
    return spent / steps * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ref", default="mnist")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    for workers in (0, 1):
        with datahub.StreamingLoader(
            given.ref, batch_size=given.batch, shuffle=True, transform="normalize", num_workers=workers
        ) as loader:
            counted, idle = [], []
            for number in range(given.rounds):
                pair = [(counted, Counters()), (idle, Idle())]
                for times, counters in pair if number % 2 else reversed(pair):
                    times.append(microseconds(loader, counters, 800))
            ratio = statistics.median(a / b for a, b in zip(counted, idle, strict=True))
            ours, peer = statistics.median(counted), statistics.median(idle)
            figures = {"us_counted": round(ours, 1), "us_uncounted": round(peer, 1), "ratio": round(ratio, 4)}
            print(json.dumps({"workers": workers, "batch": given.batch, **figures}))
            began = time.perf_counter()
            for _ in range(1000):
                loader.stats()
            print(json.dumps({"us_stats": round((time.perf_counter() - began) * 1e3, 1)}))
            places = [(epoch, step) for epoch in (0, 7) for step in (0, len(loader) // 2, len(loader) - 2)]
            for epoch, step in places:
                loader.at(epoch, step)
                began = time.perf_counter()
                loader.at(epoch, step)
                spent = round((time.perf_counter() - began) * 1e6)
                print(json.dumps({"at": [epoch, step], "us": spent}))


if __name__ == "__main__":
    main()
