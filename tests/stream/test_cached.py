"""Remote shards through the cache: the contract of every source, then what only they do."""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.core.errors import ConnectionLost, DigestMismatch, OriginStalled
from datahub.store.blocks import of_bytes
from datahub.store.cache.blockcache import BlockCache
from datahub.stream import cached, fetcher, pieces, samples
from datahub.stream.cached import CachedShards
from datahub.stream.fetcher import Fetcher
from datahub.stream.origin import ManyMemoryFiles, MemoryFiles
from datahub.stream.pieces import Shard
from tests.stream.test_source import SHARDS, SourceContract, expected, spans

BLOCK = 1 << 12


def shards_of(contents):
    return [Shard(f"s-{i}.tar", len(data), raw_of(data)) for i, data in enumerate(contents)]


def raw_of(data):
    return b"".join(hashlib.sha256(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 4 KiB, so that little data makes many of them."""
    for module in (cached, pieces):
        monkeypatch.setattr(module, "BLOCK", BLOCK)


@pytest.fixture
def origin():
    return MemoryFiles({f"s-{i}.tar": data for i, data in enumerate(SHARDS)})


@pytest.fixture
def build(tmp_path, origin, small_blocks):
    made = []

    def source(limit=None, seconds=5.0, **options):
        cache = BlockCache(tmp_path / "cache", limit)
        made.append(CachedShards("tiny", origin, shards_of(SHARDS), cache, seconds, **options))
        return made[-1]

    yield source
    for each in made:
        each.close()


class TestCachedShards(SourceContract):
    @pytest.fixture
    def source(self, build):
        return build()


class TestThroughATinyCache(SourceContract):
    """Two blocks of room: what is filled is evicted before long, and nothing is wrong for it."""

    @pytest.fixture
    def source(self, build):
        return build(limit=2 * BLOCK)


class FakeVouchers:
    """Vouches for every span that begins at a multiple of seven."""

    def digest(self, span):
        shard, offset, size = span
        return hashlib.sha256(SHARDS[shard][offset : offset + size]).digest() if offset % 7 == 0 else None


class TestScattered(SourceContract):
    """What the cache has no room for is read by itself, where something vouches for it."""

    @pytest.fixture
    def source(self, build):
        return build(limit=20 * BLOCK, vouchers=FakeVouchers())


@pytest.fixture
def together(build, monkeypatch):
    """The origin gives many ranges at once."""
    origin = ManyMemoryFiles({f"s-{i}.tar": data for i, data in enumerate(SHARDS)})
    monkeypatch.setattr(samples, "LATER", 1)
    source = build(limit=1, vouchers=FakeVouchers())
    source._files = origin
    source._begin()
    return source, origin


class TestTogether(SourceContract):
    """Samples of a shard by one request."""

    @pytest.fixture
    def source(self, together):
        return together[0]


class TestSamplesTogether:
    COMING = spans(*((at % 2, 700 * at, 90) for at in range(70)))

    def test_samples_of_a_shard_come_by_one_request(self, together):
        source, origin = together
        assert [bytes(each) for each in source.read_many(self.COMING)] == expected(self.COMING)
        assert origin.together == [35, 35] and len(origin.asked) == len(set(origin.asked)) == 70

    def test_what_is_announced_is_asked_for_once_and_held_until_it_is_read(self, together):
        source, origin = together
        assert source.ahead(None) and source.ahead(self.COMING) and source.ahead(self.COMING)
        assert source._singles._bytes == 70 * 90
        twice = spans(*[*self.COMING.rows(), *self.COMING.rows()])
        assert [bytes(each) for each in source.read_many(twice)] == expected(twice)
        assert len(origin.asked) == 70 and source._singles._bytes == 0 and not source._singles._held

    def test_what_is_announced_waits_for_more_of_its_shard_until_it_is_read(self, together, monkeypatch):
        source, origin = together
        monkeypatch.setattr(samples, "LATER", 50 * 90)
        for at in range(6):
            assert source.ahead(self.COMING.take(slice(10 * at, 10 * at + 10)))
        assert source._singles._bytes == 50 * 90 and source._singles._bytes_later == 10 * 90
        first = self.COMING.take(slice(0, 20))
        assert [bytes(each) for each in source.read_many(first)] == expected(first)
        assert sorted(origin.together) == [25, 25] and source._singles._bytes_later == 10 * 90
        last = self.COMING.take(slice(55, 60))
        assert [bytes(each) for each in source.read_many(last)] == expected(last)
        assert sorted(origin.together) == [5, 5, 25, 25] and source._singles._bytes_later == 0
        source.ahead(None)
        assert source._singles._bytes == 0

    def test_no_more_is_announced_than_may_be_held(self, together, monkeypatch):
        source, _ = together
        monkeypatch.setattr(samples, "HELD", 70 * 90)
        assert not source.ahead(self.COMING)
        source.read_many(self.COMING.take(slice(0, 1)))
        assert source.ahead(self.COMING.take(slice(69, 70)))

    def test_what_does_not_come_together_is_asked_for_by_itself(self, together):
        source, origin = together
        origin.failures = [ConnectionLost("fake", "reset"), ConnectionLost("fake", "reset")]
        assert source.ahead(self.COMING)
        assert [bytes(each) for each in source.read_many(self.COMING)] == expected(self.COMING)
        assert len(set(origin.asked)) == 70 and not origin.failures

    def test_wrong_bytes_among_them_are_refused_by_name(self, together):
        source, origin = together
        origin.files["s-1.tar"] = SHARDS[1][:21_705] + bytes(8) + SHARDS[1][21_713:]
        assert source.ahead(self.COMING)
        with pytest.raises(DigestMismatch, match=r"fake://origin/s-1.tar bytes 21700-21790"):
            source.read_many(spans((1, 21_700, 90)))
        others = [each for each in self.COMING.rows() if each != (1, 21_700, 90)]
        assert [bytes(each) for each in source.read_many(spans(*others))] == expected(spans(*others))

    def test_what_was_given_up_is_asked_for_again(self, together):
        source, _ = together
        assert source.ahead(self.COMING)
        coming = source._singles.get(self.COMING.rows())
        source._fetcher.close()
        assert [bytes(coming[each](5)) for each in self.COMING.rows()] == expected(self.COMING)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 99), st.integers(1, 30)), max_size=40), st.integers(1, 5))
def test_groups_are_ranges_that_one_request_may_ask_for(asked, most):
    found = list(samples.groups([(each, b"") for each in asked], most))
    assert sorted(span for group in found for span, _ in group) == sorted(asked)
    for group in found:
        assert 1 <= len(group) <= most and len({shard for (shard, _, _), _ in group}) == 1
        assert all(a[1] + a[2] <= b[1] for (a, _), (b, _) in pairwise(group))


class TestThroughNoCache(SourceContract):
    @pytest.fixture
    def source(self, build):
        return build(limit=1)


def test_digests_of_four_mebibytes_are_those_of_the_record():
    data = bytes(np.random.default_rng(0).integers(0, 256, (8 << 20) + 5, np.uint8))
    shard = Shard("a", len(data), of_bytes(data).raw)
    block = shard.block(2, "a", "t")
    assert (block.size, block.sha256) == (5, hashlib.sha256(data[-5:]).digest())


def test_each_block_is_asked_for_once(build, origin):
    source = build()
    everything = spans(*((s, at, 100) for s in range(3) for at in range(0, 199_900, 50)))
    for _ in range(2):
        assert [bytes(each) for each in source.read_many(everything)] == expected(everything)
    assert len(origin.asked) == len(set(origin.asked)) == 3 * -(-200_000 // BLOCK)


def test_blocks_are_fetched_side_by_side(build, origin):
    source, origin.delay = build(), 0.1
    began = time.monotonic()
    source.read_many(spans(*((0, at * BLOCK, 10) for at in range(16))))
    assert time.monotonic() - began < 0.8


def test_what_is_announced_is_there_when_it_is_read(build, origin):
    source = build()
    coming = spans(*((1, at * BLOCK, 10) for at in range(20)))
    assert source.ahead(None)
    assert source.ahead(coming)
    assert wait(lambda: len(origin.asked) == 20)
    assert wait(lambda: source._fetcher.under_way(source._wanted([(1, 19 * BLOCK, 10)])[0].block.key) is None)
    origin.failures = [ConnectionLost("fake", "should not be asked")]
    assert [bytes(each) for each in source.read_many(coming)] == expected(coming)
    assert len(origin.asked) == 20


def test_what_is_announced_is_not_evicted_before_it_is_read(build, origin):
    source = build(limit=20 * BLOCK)
    coming = spans(*((1, at * BLOCK, 10) for at in range(10)))
    source.ahead(None)
    source.ahead(coming)
    assert wait(lambda: all(source._cache.has(each.block) for each in source._wanted(list(coming.rows()))))
    source.read_many(spans(*((2, at * BLOCK, 10) for at in range(40))))
    asked = len(origin.asked)
    source.read_many(coming)
    assert len(origin.asked) == asked
    source.ahead(None)
    source.read_many(spans(*((0, at * BLOCK, 10) for at in range(40))))
    assert source._cache.usage().bytes <= 20 * BLOCK


def test_no_more_is_announced_than_the_cache_can_keep(build):
    source = build(limit=8 * BLOCK)
    source.ahead(None)
    answers = [source.ahead(spans((0, at * BLOCK, 10))) for at in range(8)]
    assert answers == [True] * 5 + [False] * 3
    source.read_many(spans(*((0, at * BLOCK, 10) for at in range(5))))
    assert source.ahead(spans((1, 0, 10)))


class TestSinglesOnly:
    @pytest.fixture
    def source(self, build):
        return build(limit=1, vouchers=FakeVouchers())

    def test_no_more_is_read_than_the_samples(self, source, origin):
        coming = spans(*((2, 700 * at, 90) for at in range(30)))
        assert [bytes(each) for each in source.read_many(coming)] == expected(coming)
        assert sorted(origin.asked) == sorted(("s-2.tar", 700 * at, 700 * at + 90) for at in range(30))

    def test_what_is_announced_is_read_once(self, source, origin):
        coming = spans(*((2, 700 * at, 90) for at in range(30)))
        assert source.ahead(None)
        assert source.ahead(coming)
        assert wait(lambda: len(origin.asked) == 30)
        assert wait(lambda: not source._fetcher._state.tasks)
        assert [bytes(each) for each in source.read_many(coming)] == expected(coming)
        assert len(origin.asked) == 30 and source._singles._bytes == 0

    def test_wrong_bytes_are_refused_by_name(self, source, origin):
        origin.files["s-1.tar"] = bytes(200_000)
        with pytest.raises(DigestMismatch, match=r"fake://origin/s-1.tar bytes 70-80: digest is"):
            source.read(1, 70, 10)
        assert len(origin.asked) == 3


def test_wrong_bytes_are_asked_for_again_then_refused_by_name(build, origin):
    source = build()
    good, origin.files["s-1.tar"] = origin.files["s-1.tar"], bytes(200_000)
    with pytest.raises(DigestMismatch, match=r"fake://origin/s-1.tar block 2: digest is sha256:"):
        source.read(1, 2 * BLOCK, 10)
    assert len(origin.asked) == 3
    origin.files["s-1.tar"] = good
    assert bytes(source.read(1, 2 * BLOCK, 10)) == good[2 * BLOCK : 2 * BLOCK + 10]


def test_a_stalled_origin_is_reported_by_name_to_every_reader(build, origin):
    source, origin.delay = build(seconds=0.3), 30.0
    release = threading.Event()
    origin.receive = lambda *a: release.wait(20)  # a client that keeps no deadline of its own
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(source.read, 0, at * BLOCK, 10) for at in range(20)]
        for each in waiting:
            with pytest.raises(OriginStalled, match=r"fake://origin/s-0.tar block \d+: did not give"):
                each.result(10)
    assert time.monotonic() - began < 5.0
    release.set()


def test_threads_end_when_there_is_nothing_to_do(build, monkeypatch):
    monkeypatch.setattr(fetcher, "IDLE", 0.1)
    source = build()
    source.read(0, 0, 10)
    assert wait(lambda: not any(each.name == "datahub-fetch" for each in threading.enumerate()))
    assert bytes(source.read(0, 100_000, 10)) == SHARDS[0][100_000:100_010]


class TestFetcher:
    def test_one_task_a_key_and_urgent_ones_first(self):
        fetching, ran = Fetcher(1), []
        first = threading.Event()

        def work(name):
            def run(urgent):
                first.wait(5)
                ran.append((name, urgent))
                return name.encode()

            return run

        held = fetching.ask("held", work("held"), urgent=False)
        assert wait(lambda: held.running() or fetching._state.tasks["held"].begun)
        later = [fetching.ask(name, work(name), urgent=False) for name in "abc"]
        again = fetching.ask("c", work("other"), urgent=True)
        assert again is later[2]
        first.set()
        assert [each.result(5) for each in later] == [b"a", b"b", b"c"]
        assert ran == [("held", False), ("c", True), ("a", False), ("b", False)]
        fetching.close()

    def test_what_is_dropped_does_not_run(self):
        fetching, release = Fetcher(1), threading.Event()
        held = fetching.ask("held", lambda urgent: release.wait(5) and b"", urgent=False)
        assert wait(lambda: fetching._state.tasks["held"].begun)
        dropped = fetching.ask("x", lambda urgent: b"x", urgent=False)
        urgent = fetching.ask("y", lambda urgent: b"y", urgent=True)
        fetching.drop()
        release.set()
        assert urgent.result(5) == b"y" and held.result(5) == b"" and dropped.cancelled()
        fetching.close()


def wait(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
