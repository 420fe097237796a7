"""Time to the first batch from the start of an epoch and from a state at 90 % of it, in fresh processes by turns.

    python tests/benchmarks/bench_resume.py [--ref mnist] [--rounds 7]

Timed from before the constructor, imports left out. Prints one JSON line a kind, then the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

import datahub


def loader(ref: str, batch: int) -> datahub.StreamingLoader:
    return datahub.StreamingLoader(ref, batch_size=batch, shuffle=True, transform="normalize", num_workers=2)


def first_batch(ref: str, batch: int, state: dict[str, int | str] | None) -> float:
    torch.zeros(1)
    began = time.perf_counter()
    made = loader(ref, batch)
    if state is not None:
        made.load_state_dict(state)
    found = next(iter(made))
    spent = time.perf_counter() - began
    assert len(found["label"]) == batch
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ref", default="mnist")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.child:
        print(first_batch(o.ref, o.batch, json.loads(o.child)))
        return
    made = loader(o.ref, o.batch)
    made.skip(len(made) * 9 // 10)
    states = {"start": None, "resume at 90 %": made.state_dict()}
    times: dict[str, list[float]] = {name: [] for name in states}
    for _ in range(o.rounds):
        for name, state in states.items():
            command = [sys.executable, __file__, "--ref", o.ref, "--batch", str(o.batch), "--child", json.dumps(state)]
            times[name].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for name, found in times.items():
        print(json.dumps({"from": name, "first_batch_ms": [round(each * 1e3, 1) for each in found]}))
    start, resume = (statistics.median(found) for found in times.values())
    print(json.dumps({"figure": "resume against start", "ratio": round(resume / start, 2)}))


if __name__ == "__main__":
    main()
