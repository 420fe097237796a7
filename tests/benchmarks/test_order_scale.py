"""The benchmark of the order at scale works, its checks can fail, and its cache is the one that loaders have."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datahub.order import EpochOrder, OrderOptions
from datahub.order.population import Blocks
from datahub.store.cache.policy import HOT, Entry, dispensable
from tests.benchmarks import bench_order_scale
from tests.benchmarks._node import BLOCK, BlockNode, Job, Remote, SampleNode, node_of


def test_quick(capsys):
    bench_order_scale.main(["--quick"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = {row["of"]: [each for each in found if each["of"] == row["of"]] for row in found}
    assert set(kinds) == {"exhaustive", "scale", "cost", "memory", "download"}
    assert all(row["exactly_once"] and row["steps"] == 80 for row in kinds["exhaustive"])
    assert all(0 < row["peak_mib"] < 200 for row in kinds["memory"])
    assert {row["reads"] for row in kinds["download"]} == {"blocks", "samples"}
    for row in kinds["download"]:
        assert 0.99 < row["times_ideal"][0] < 1.5 and 0.7 < row["times_ideal"][1] < 1.5


def test_an_order_that_is_not_exact_is_found_out(monkeypatch):
    blocks = Blocks(np.arange(0, 4001, 100))
    options = OrderOptions("all", 2)
    order = EpochOrder(blocks.edges, seed=bench_order_scale.SEED, epoch=bench_order_scale.EPOCH, options=options)
    counts = np.zeros(4000, np.uint8)
    for rank in range(3):
        bench_order_scale.walked(bench_order_scale.plan(blocks, options, 50, rank, 3), order, counts)
    assert (counts == 1).all()
    real = EpochOrder.locate
    monkeypatch.setattr(EpochOrder, "locate", lambda self, line: real(self, np.asarray(line) // 2 * 2))
    with pytest.raises(AssertionError):
        bench_order_scale.lanes_once(order, [0, 1])
    with pytest.raises(AssertionError):
        bench_order_scale.walked(bench_order_scale.plan(blocks, options, 50, 0, 3), order, counts)


def remote(shards: int = 20) -> Remote:
    return Remote(np.full(shards, 500), image=110_000, record=112_128, block=100)


def test_a_cache_that_holds_everything_downloads_it_once():
    far = remote()
    job = Job(nodes=1, options=OrderOptions(), batch=64, limit=2 * far.bytes)
    node = node_of(far, job)
    assert isinstance(node, BlockNode)
    for epoch in (0, 1):
        node.epoch(EpochOrder(far.edges, seed=0, epoch=epoch), 0)
        assert node.traffic.bytes == far.blocks * BLOCK


def test_a_window_that_fits_is_downloaded_as_blocks_and_all_else_as_samples():
    far, limit = remote(), 160 << 20
    narrow = Job(nodes=1, options=OrderOptions(window=4), batch=64, limit=limit, pace=100)
    wide = Job(nodes=1, options=OrderOptions(), batch=64, limit=limit)
    blocks, samples = node_of(far, narrow), node_of(far, wide)
    assert isinstance(blocks, BlockNode) and isinstance(samples, SampleNode)
    for node, job in ((blocks, narrow), (samples, wide)):
        node.epoch(EpochOrder(far.edges, seed=0, epoch=0, options=job.options), 0)
        assert 0.95 < node.traffic.bytes / far.bytes < 1.4  # cache blocks reach over the borders of small blocks
    forced = BlockNode(far, wide)
    forced.epoch(EpochOrder(far.edges, seed=0, epoch=0), 0)
    assert forced.traffic.bytes / far.bytes > 10, "whole blocks of a scattered order are what must not be read"


def test_blocks_go_in_the_order_of_the_caches_policy():
    rng, job = np.random.default_rng(0), Job(nodes=1, options=OrderOptions(), batch=1, limit=1 << 30, pace=10)
    node = BlockNode(remote(), job)
    node._here = rng.permutation(200)
    node._used[:200] = rng.integers(0, 40, 200) * 10
    node._wanted[:200] = rng.random(200) < 0.2
    node._clock = 400
    entries = [Entry(f"{key:04d}", BLOCK, "set", node._used[key] / job.pace) for key in range(200)]
    wanted = {f"{key:04d}" for key in np.flatnonzero(node._wanted[:200])}
    expected = [int(entry.key) for entry in dispensable(entries, wanted, node._clock / job.pace)]
    assert node.dispensable().tolist() == expected
    assert len({node._clock - node._used[key] > HOT * job.pace for key in expected}) == 2
