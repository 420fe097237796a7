"""The order at the size of a cluster: exactly once, equal steps, its inverse, its cost, and what each node downloads.

    python tests/benchmarks/bench_order_scale.py [--part exhaustive|scale|download] [--whole] [--quick]

- exhaustive: 10^7 samples in ragged shards; every rank of every job walks its whole epoch, and each sample is counted.
- scale: 10^9 samples, 4,096 ranks. The slots of every rank tile each lane (all ranks, some steps, and the valid slots
  of all steps add up); whole lanes are bijective (some; all of the 10^9 samples with ``--whole``, 1 GB and minutes);
  the permutation of blocks is (all); 10^6 random positions come back through every inverse.
- download: simulated nodes of 8 ranks with a bounded cache, see `_node.py`; bytes as a multiple of dataset / nodes.
  10^9 samples on 1 and 8 nodes take half an hour, so only with ``--whole``.

JSON lines; a check that fails ends it with an AssertionError. Nothing is read. There is no peer to ask: torch's sampler
would hold 10^9 indices as a Python list.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datahub.loader.schedule import Plan, Schedule
from datahub.loader.topology import Topology
from datahub.order import EpochOrder, OrderOptions, Permutation, cut_blocks, rank_of, share_of
from datahub.order.population import Blocks
from tests.benchmarks._node import Int, Job, Remote, node_of

BLOCK = 1000
SEED, EPOCH = 11, 4
IMAGE, RECORD, SHARD = 110_000, 112_128, 256_000_000
"""Bytes of an image, of its record in a tar, and of a shard."""
GPUS, PER_RANK = 8, 64
"""Of a node; samples of a rank's batch."""


@dataclass(frozen=True)
class Sizes:
    exhaustive: int
    jobs: Sequence[tuple[int, int | str, int, Sequence[int]]]
    """(lanes, window, global batch, world sizes)."""
    scale: int
    ranks: int
    lanes: int
    picked: int
    sets: Sequence[tuple[str, int, int, Sequence[int], int]]
    """(name, samples, bytes of a cache, nodes, epochs); with ``--whole`` as many nodes as the first set has."""
    windows: Sequence[int | str]


FULL = Sizes(
    exhaustive=10**7,
    jobs=[
        (1, "all", 40_320, (1, 64, 100, 999)),
        (8, 64, 40_320, (8, 100)),
        (24, 3, 40_320, (24, 7)),
        (7, "all", 4_032, (3,)),
    ],
    scale=10**9,
    ranks=4096,
    lanes=512,
    picked=10**6,
    sets=[
        ("imagenet", 1_281_167, 64 << 30, (1, 8, 64, 512), 2),
        ("billion", 10**9, 500 << 30, (64, 512), 1),
    ],
    windows=("all", 64, 256),
)
QUICK = Sizes(
    exhaustive=40_000,
    jobs=[(1, "all", 504, (1, 5)), (7, 3, 504, (7, 11))],
    scale=10**6,
    ranks=96,
    lanes=12,
    picked=10**4,
    sets=[("small", 60_000, 1 << 30, (1, 4), 2)],
    windows=("all", 2),
)


def report(what: str, **facts: Any) -> None:
    print(json.dumps({"of": what, **facts}), flush=True)


def ragged(samples: int, mean: int) -> Int:
    """Sizes of shards, from half to one and a half of ``mean``, that sum to ``samples``."""
    sizes = np.random.default_rng(0).integers(mean // 2, mean * 3 // 2 + 1, samples // mean * 2 + 4)
    ends = np.minimum(np.cumsum(sizes), samples)
    return np.diff(ends[: np.searchsorted(ends, samples) + 1], prepend=0)


# -- all of 10^7 ------------------------------------------------------------------------------------------------------


def exhaustive(sizes: Sizes) -> None:
    blocks = Blocks(cut_blocks(ragged(sizes.exhaustive, 5000).tolist(), BLOCK))
    for lanes, window, batch, worlds in sizes.jobs:
        options = OrderOptions(window, lanes)  # type: ignore[arg-type]
        order = EpochOrder(blocks.edges, seed=SEED, epoch=EPOCH, options=options)
        everything = np.arange(order.size)
        assert np.array_equal(order.position(order.sample(everything)), everything)
        for world in worlds:
            began = time.perf_counter()
            counts = np.zeros(order.size, np.uint8)
            steps = {walked(plan(blocks, options, batch, rank, world), order, counts) for rank in range(world)}
            assert len(steps) == 1 and (counts == 1).all()
            facts = {"samples": order.size, "lanes": lanes, "window": window, "batch": batch, "world_size": world}
            spent = round(time.perf_counter() - began, 1)
            report("exhaustive", **facts, steps=steps.pop(), exactly_once=True, inverse=True, seconds=spent)


def plan(blocks: Blocks, options: OrderOptions, batch: int, rank: int, world: int) -> Plan:
    return Plan((), BLOCK, SEED, True, options, batch, False, False, Topology(rank, world), blocks)


def walked(job: Plan, order: EpochOrder, counts: np.ndarray) -> int:
    """How many batches a rank has. Counts their samples, and asks the inverse where each of them stands."""
    schedule, batch, topology = Schedule(job), job.batch, job.topology
    found: list[tuple[Int, Int, Int]] = []
    after = 0
    while (end := schedule.after(after)) is not None:
        step = schedule.step(EPOCH, after)
        assert len(step.index) and step.n_global == order.valid_in(batch, after) and step.after == end
        own = step.valid
        found.append((step.index[own], step.places[own], np.full(int(own.sum()), after)))
        after = end
    samples, places, begins = (np.concatenate(each) for each in zip(*found, strict=True))
    np.add.at(counts, samples, 1)
    begin, slot = order.slot_of(order.position(samples), batch)
    assert np.array_equal(begin, begins) and np.array_equal(begin + slot, places)
    assert (rank_of(slot, batch, topology.world_size) == topology.rank).all()
    return len(found)


# -- 10^9 on 4,096 ----------------------------------------------------------------------------------------------------


def scale(sizes: Sizes, *, whole: bool) -> None:
    edges = cut_blocks(ragged(sizes.scale, SHARD // RECORD).tolist(), BLOCK)
    batch = sizes.ranks * PER_RANK
    assert is_bijective(Permutation(len(edges) - 1, SEED, EPOCH, "block"), len(edges) - 1)
    for window in ("all", 64):
        options = OrderOptions(window, sizes.lanes)  # type: ignore[arg-type]
        began = time.perf_counter()
        order = EpochOrder(edges, seed=SEED, epoch=EPOCH, options=options)
        built = round((time.perf_counter() - began) * 1e3)
        facts = {"samples": order.size, "blocks": len(edges) - 1, "ranks": sizes.ranks, "lanes": sizes.lanes}
        facts["window"] = window
        inverses(order, batch, sizes)
        steps = tiled(order, batch, sizes.ranks)
        lanes = some_of(sizes.lanes, sizes.lanes if whole and window == 64 else 8)
        seen = lanes_once(order, lanes)
        checked = {"inverse_of": sizes.picked, "lanes_checked": len(lanes), "samples_seen_once": seen}
        report("scale", **facts, steps=steps, steps_of_all_ranks_equal=True, **checked)
        report("cost", **facts, build_ms=built, **cost(Blocks(edges), options, batch, sizes.ranks))
    report("memory", **facts, **memory(sizes.scale, window, sizes.lanes))


def is_bijective(permutation: Permutation, size: int) -> bool:
    return bool((np.bincount(permutation(np.arange(size)), minlength=size) == 1).all())


def inverses(order: EpochOrder, batch: int, sizes: Sizes) -> None:
    """Random positions come back from samples, and from the step, slot and rank that hold them."""
    positions = np.random.default_rng(1).integers(0, order.size, sizes.picked)
    samples = order.sample(positions)
    assert samples.min() >= 0 and samples.max() < order.size
    assert np.array_equal(order.position(samples), positions)
    assert np.array_equal(order.line_of(*order.locate(positions)), positions)
    begins, slots = order.slot_of(positions, batch)
    owners = rank_of(slots, batch, sizes.ranks)
    for position, begin, slot, owner in zip(positions[:1000], begins, slots, owners, strict=False):
        first, last = share_of(batch, int(owner), sizes.ranks)
        assert first <= slot < last
        line, valid = order.slots(batch, int(begin), int(slot), int(slot) + 1)
        assert valid[0] and line[0] == position


def tiled(order: EpochOrder, batch: int, ranks: int) -> int:
    """Steps of an epoch. In some, the last two among them, the slots of all ranks are the next part of each lane.

    A step's part of a lane begins where the one before it ends, and over all steps the valid slots add up to every
    sample: so each line position is in exactly one step, and of one rank there.
    """
    steps, share = order.steps(batch), batch // order.lanes
    assert sum(order.valid_in(batch, step * batch) for step in range(steps)) == order.size
    for step in (*some_of(steps, 6), steps - 2, steps - 1):
        parts = [order.slots(batch, step * batch, *share_of(batch, rank, ranks)) for rank in range(ranks)]
        assert all(len(line) for line, _ in parts), "every rank has slots in every step, so all ranks step alike"
        held = np.concatenate([line[valid] for line, valid in parts])
        first = np.minimum(order.borders[:-1] + step * share, order.borders[1:])
        last = np.minimum(first + share, order.borders[1:])
        expected = np.concatenate([np.arange(*each) for each in zip(first, last, strict=True)])
        assert np.array_equal(held, expected)
    return steps


def lanes_once(order: EpochOrder, lanes: Sequence[int]) -> int:
    """How many samples some whole lanes hold; none of them twice. All lanes: every sample of the order once."""
    seen = np.zeros(order.size, np.bool_)
    held = 0
    for lane in lanes:
        samples = order.sample(np.arange(order.borders[lane], order.borders[lane + 1]))
        seen[samples] = True
        held += len(samples)
    assert int(np.count_nonzero(seen)) == held
    return held


def some_of(count: int, most: int) -> list[int]:
    return (
        sorted({place * (count - 1) // max(1, most - 1) for place in range(most)}) if most < count else [*range(count)]
    )


def cost(blocks: Blocks, options: OrderOptions, batch: int, ranks: int) -> dict[str, float]:
    """Microseconds of one rank's step: in order, and after a jump."""
    schedule = Schedule(plan(blocks, options, batch, ranks // 3, ranks))
    schedule.step(EPOCH, 0)
    steps = [step * batch for step in range(min(2000, len(schedule) - 1))]
    began = time.perf_counter()
    for position in steps:
        schedule.step(EPOCH, position)
    each = (time.perf_counter() - began) / len(steps)
    jumps = [int(step) * batch for step in np.random.default_rng(2).integers(0, len(schedule) - 1, 50)]
    began = time.perf_counter()
    for position in jumps:
        schedule.step(EPOCH, position)
    jump = (time.perf_counter() - began) / len(jumps)
    return {"batch_of_rank": batch // ranks, "step_us": round(each * 1e6, 1), "jump_us": round(jump * 1e6, 1)}


def memory(samples: int, window: int | str, lanes: int) -> dict[str, float]:
    """Peak memory of an epoch's order over that of the imports, in a process of its own; also of larger blocks."""
    found = {}
    for name, block in (("peak_mib", BLOCK), ("peak_mib_of_tenfold_blocks", 10 * BLOCK)):
        wanted = json.dumps([samples, block, window, lanes])
        command = [sys.executable, str(Path(__file__).resolve()), "--peak-of", wanted]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    return found


def peak(samples: int, block: int, window: int | str, lanes: int) -> float:
    """MiB that an order of ``samples`` in blocks of ``block``, and steps of it, add to this process."""
    before = memory_of_this("VmRSS")
    shard = SHARD // RECORD * block // BLOCK
    edges = cut_blocks(ragged(samples, shard).tolist(), block)
    options = OrderOptions(window, lanes)  # type: ignore[arg-type]
    schedule = Schedule(plan(Blocks(edges), options, lanes * 512, lanes // 2, lanes))
    for step in range(64):
        schedule.step(EPOCH, (step * 31 % len(schedule)) * schedule.plan.batch)
    return round((memory_of_this("VmHWM") - before) / 1024, 1)


def memory_of_this(what: str) -> int:
    """KiB: Linux's own count, of this process since it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


# -- what nodes download ----------------------------------------------------------------------------------------------


def download(sizes: Sizes, *, whole: bool) -> None:
    for name, samples, limit, some, epochs in sizes.sets:
        nodes = sizes.sets[0][3] if whole else some
        remote = Remote(ragged(samples, SHARD // RECORD), image=IMAGE, record=RECORD, block=BLOCK)
        for count in nodes:
            for lanes in sorted({1, count}):
                for window in sizes.windows:
                    options = OrderOptions(window, lanes)  # type: ignore[arg-type]
                    facts = {"set": name, "samples": samples, "nodes": count, "lanes": lanes, "window": window}
                    job = Job(nodes=count, options=options, batch=GPUS * PER_RANK, limit=limit)
                    report("download", **facts, cache_gib=limit >> 30, **traffic(remote, job, epochs))


def traffic(remote: Remote, job: Job, epochs: int) -> dict[str, Any]:
    """What the node in the middle downloads in its first epochs."""
    node, found = node_of(remote, job), []
    for epoch in range(epochs):
        order = EpochOrder(remote.edges, seed=SEED, epoch=epoch, options=job.options)
        before = node.traffic.bytes
        node.epoch(order, job.nodes // 2)
        found.append(node.traffic.bytes - before)
    ideal = remote.bytes / job.nodes
    times = [round(each / ideal, 3) for each in found]
    mean = round(node.traffic.bytes / max(1, node.traffic.requests))
    return {
        "reads": node.how,
        "gb": [round(each / 1e9, 1) for each in found],
        "times_ideal": times,
        "range_bytes": mean,
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["exhaustive", "scale", "download"], action="append")
    parser.add_argument("--whole", action="store_true", help="all lanes, and all nodes, of 10^9 samples")
    parser.add_argument("--quick", action="store_true", help="everything, of a size that takes seconds")
    parser.add_argument("--peak-of", type=json.loads, help=argparse.SUPPRESS)
    o = parser.parse_args(given)
    if o.peak_of:
        print(peak(*o.peak_of))
        return
    sizes = QUICK if o.quick else FULL
    parts = o.part or ["exhaustive", "scale", "download"]
    if "exhaustive" in parts:
        exhaustive(sizes)
    if "scale" in parts:
        scale(sizes, whole=o.whole)
    if "download" in parts:
        download(sizes, whole=o.whole)


if __name__ == "__main__":
    main()
