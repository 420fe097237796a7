"""Estimates: arithmetic that agrees with what the order really makes nodes read, and facts from where they say."""

from __future__ import annotations

import numpy as np
import pytest

import datahub
from datahub.core.errors import BadArgument, UnknownDataset, UnknownSplit
from datahub.core.refs import Ref
from datahub.loader.estimate import BLOCK, Facts, Job, estimate, touched
from datahub.loader.estimating import facts_of
from datahub.loader.schedule import Plan, Schedule
from datahub.loader.topology import Topology
from tests.store.builder import tiny_variant

IMAGE = 100_000


def facts(samples: int = 1_280_000, **changes) -> Facts:
    known = {"ref": "x", "split": "train", "samples": samples, "packed": samples * IMAGE, "image": IMAGE * 0.99}
    return Facts(**{**known, "block": 1000, "known_from": "t", "seconds": 0.002, "seconds_from": "t", **changes})


def test_rates_add_up():
    found = estimate(facts(), Job(nodes=64, gpus=8, rate=2500, batch=100, lanes=64, window=4, epochs=10))
    assert found.images_per_second == 20_000 and found.cores == 40 and found.epoch_seconds == 1.0
    assert found.steps == 25 and found.read_per_second == 20_000 * IMAGE * 0.99
    copy, kept, window = found.ways
    whole = 1_280_000 * IMAGE
    assert (copy.disk, copy.first, copy.later, copy.once) == (whole, whole, 0, True)
    share = touched(found.facts, found.job)
    assert share == pytest.approx(1 / 64, rel=0.05)  # a little more: fetched blocks reach over the edges
    assert kept.first == whole * share and kept.disk == pytest.approx(whole * (1 - (1 - share) ** 10))
    assert kept.first + 9 * kept.later == pytest.approx(kept.disk)
    assert window.disk == 2 * 4 * 1000 * IMAGE and window.first == window.later == kept.first
    assert found.rate(kept.first) == kept.first / found.epoch_seconds and found.advice == []


def test_one_node_reads_all_and_once():
    found = estimate(facts(), Job(nodes=1, gpus=1))
    assert [(way.disk, way.first, way.later) for way in found.ways] == [(128e9, 128e9, 0.0)] * 2
    assert found.steps is None and found.advice == []


def test_nodes_that_share_lanes_read_by_samples_where_the_cache_is_bounded():
    found = estimate(facts(), Job(nodes=8, lanes=4, window=16))
    whole, kept, window = found.ways
    assert kept.first > 1.9 * whole.first / 8, "blocks hold samples of two nodes"
    assert "by samples" in window.name and window.first == window.later == whole.first / 8


def test_advice_names_what_to_change():
    found = estimate(facts(), Job(nodes=6, lanes=4))
    assert any("Order(lanes=6)" in each for each in found.advice) and any("window" in each for each in found.advice)


@pytest.mark.parametrize(
    ("lanes", "nodes", "mean"),
    [(8, 8, 100_000), (1, 8, 100_000), (1, 8, 1_000_000), (2, 4, 600_000), (3, 4, 300_000), (8, 2, 3_000)],
)
def test_the_share_is_what_the_order_makes_nodes_read(lanes, nodes, mean):
    """Against the real order: blocks of 4 MiB that hold a sample of a node, over an epoch of 20,000 samples."""
    samples, block, batch = 20_000, 100, 60 * nodes
    shares = []
    for node in range(nodes):
        options = datahub.Order(lanes=lanes)
        plan = Plan([samples // 4] * 4, block, 1, True, options, batch, False, False, Topology(node, nodes))
        schedule = Schedule(plan)
        steps = [schedule.step(0, number * batch) for number in range(len(schedule))]
        rows = np.concatenate([step.index[step.valid] for step in steps])
        shares.append(len(np.unique(rows * mean // BLOCK)) / (samples * mean // BLOCK + 1))
    expected = touched(facts(samples, packed=samples * mean, block=block), Job(nodes=nodes, lanes=lanes))
    assert max(shares) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    "arguments", [{"rate": 0}, {"epochs": 0}, {"window": "x"}, {"window": 0}, {"batch": 3, "lanes": 7}, {"nodes": 0}]
)
def test_what_cannot_be_is_refused(arguments):
    with pytest.raises(BadArgument):
        Job(**{"nodes": 2, **arguments})


def test_facts_of_a_packed_set_are_its_own(settings):
    tiny_variant(settings.home, splits={"train": 40})
    found = facts_of(Ref.parse("tiny"), "train", settings, augment="normalize")
    split = datahub.open("tiny", settings=settings)["train"]
    assert (found.samples, found.block, found.image) == (40, 8, split.locate["size"].mean())
    assert found.packed == sum(path.stat().st_size for path in split.shards)
    assert 0 < found.seconds < 0.1 and "normalize" in found.seconds_from and found.known_from == "its record"
    larger = facts_of(Ref.parse("tiny"), "train", settings, image_bytes=10 * round(found.image))
    assert larger.image == 10 * round(found.image)
    with pytest.raises(UnknownSplit):
        facts_of(Ref.parse("tiny"), "val", settings)


def test_facts_of_what_is_not_packed_come_from_the_manifest(settings):
    imagenet = facts_of(Ref.parse("imagenet"), "train", settings)
    assert (imagenet.samples, imagenet.packed) == (1_281_167, 147_897_477_120)
    assert "published files of train" in imagenet.known_from and "JPEG" in imagenet.seconds_from
    assert 0.0002 < imagenet.seconds < 0.05
    cifar = facts_of(Ref.parse("cifar10"), "test", settings)
    assert cifar.samples == 10_000 and 2000 < cifar.image < 3100 and "PNG" in cifar.seconds_from
    assert "guess" in facts_of(Ref.parse("shapes"), "train", settings).known_from
    assert facts_of(Ref.parse("shapes"), "train", settings, image_bytes=5000).packed == 8000 * 5000
    with pytest.raises(UnknownDataset):
        facts_of(Ref.parse("nothing"), "train", settings)
    with pytest.raises(UnknownSplit):
        facts_of(Ref.parse("imagenet"), "test", settings)
    with pytest.raises(BadArgument, match="not packed"):
        facts_of(Ref.parse("imagenet"), "train", settings, augment="mnist")
