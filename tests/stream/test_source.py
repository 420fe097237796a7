"""One contract for every `ShardSource`; each implementation's tests subclass it."""

from __future__ import annotations

import errno
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datahub.core.errors import NotReadable, StoreDamaged
from datahub.stream import source as module
from datahub.stream.source import LocalShards, MemoryShards, ShardSource
from datahub.stream.spans import GAP, LARGE, RUN, Spans, runs

SHARDS = [bytes(np.random.default_rng(i).integers(0, 256, 200_000, np.uint8)) for i in range(3)]


def spans(*rows: tuple[int, int, int]) -> Spans:
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return Spans(columns[:, 0].astype(np.uint32), columns[:, 1].astype(np.uint64), columns[:, 2].astype(np.uint32))


def expected(found: Spans) -> list[bytes]:
    return [SHARDS[shard][offset : offset + size] for shard, offset, size in found.rows()]


class SourceContract:
    @pytest.fixture
    def source(self, tmp_path: Path) -> ShardSource:
        raise NotImplementedError

    def test_reads_exactly_what_is_asked(self, source):
        assert bytes(source.read(1, 10, 20)) == SHARDS[1][10:30]
        assert bytes(source.read(2, 199_999, 1)) == SHARDS[2][-1:]
        assert bytes(source.read(0, 5, 0)) == b""

    @pytest.mark.parametrize(
        "rows",
        [
            [(0, 0, 10), (2, 190_000, 10_000), (1, 50, 3)],
            [(0, i * 100, 90) for i in (5, 3, 4, 0, 1, 2)],
            [(i % 3, i * 37, 37) for i in range(300)],
            [(0, i * 40_000, 39_000) for i in (3, 0, 1, 4, 2)],
            [(0, 10, 50), (0, 20, 100), (0, 20, 100), (0, 0, 1)],
            [(1, 7, 9)],
            [],
        ],
        ids=["far", "near", "mixed", "large", "overlapping", "one", "none"],
    )
    def test_reads_many_in_the_order_given(self, source, rows):
        found = spans(*rows)
        assert [bytes(each) for each in source.read_many(found)] == expected(found)

    @pytest.mark.parametrize("span", [(0, 199_990, 11), (1, 300_000, 1), (2, 0, 200_001)])
    def test_what_is_not_there_is_damage_that_names_the_shard(self, source, span):
        with pytest.raises(StoreDamaged, match=f"{span[0]}"):
            source.read(*span)
        with pytest.raises(StoreDamaged):
            source.read_many(spans((0, 0, 10), span))
        with pytest.raises(StoreDamaged):
            source.read_many(spans(*[(span[0], i * 8, 8) for i in range(20)], span))

    def test_many_threads_at_once(self, source):
        rng = np.random.default_rng(0)
        asked = [spans(*((int(s), int(o), 50) for s, o in rng.integers(0, [3, 199_950], (40, 2)))) for _ in range(40)]
        with ThreadPoolExecutor(8) as pool:
            for found, want in zip(pool.map(source.read_many, asked), map(expected, asked), strict=True):
                assert [bytes(each) for each in found] == want

    def test_reads_again_after_close(self, source):
        source.read(0, 0, 5)
        source.close()
        source.close()
        assert bytes(source.read(0, 0, 5)) == SHARDS[0][:5]

    def test_travels_through_pickle(self, source):
        source.read(0, 0, 5)
        assert bytes(pickle.loads(pickle.dumps(source)).read(2, 1, 4)) == SHARDS[2][1:5]


class TestMemoryShards(SourceContract):
    @pytest.fixture
    def source(self):
        return MemoryShards(SHARDS)

    def test_can_be_damaged(self, source):
        source.damaged.add(1)
        with pytest.raises(StoreDamaged, match="shard 1"):
            source.read(1, 0, 1)


class TestLocalShards(SourceContract):
    @pytest.fixture
    def paths(self, tmp_path):
        paths = [tmp_path / f"s-{i}.tar" for i in range(len(SHARDS))]
        for path, data in zip(paths, SHARDS, strict=True):
            path.write_bytes(data)
        return paths

    @pytest.fixture
    def source(self, paths):
        return LocalShards("tiny", paths)

    def test_nothing_is_opened_before_it_is_read(self, tmp_path):
        LocalShards("tiny", [tmp_path / "never.tar"]).close()

    def test_a_missing_shard_is_named(self, source, paths):
        source.read(0, 0, 1)
        paths[1].unlink()
        with pytest.raises(StoreDamaged, match=r"tiny is damaged: s-1.tar: cannot be read: No such file") as caught:
            source.read_many(spans((0, 0, 9), (1, 0, 9)))
        assert caught.value.problems[0].place == "s-1.tar"

    def test_a_process_without_descriptors_has_no_damaged_store(self, source, monkeypatch):
        def full(*_: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr("datahub.stream.source.os.open", full)
        with pytest.raises(NotReadable, match=r"s-1\.tar: Too many open files") as caught:
            source.read(1, 0, 9)
        assert "ulimit -n" in (caught.value.next_step or "") and caught.value.exit_code == 5

    def test_a_shard_cut_short_while_open_is_named(self, source, paths):
        source.read(2, 0, 1)
        os.truncate(paths[2], 1000)
        with pytest.raises(StoreDamaged, match=r"s-2.tar: ends at byte 1000, 1050 are needed"):
            source.read(2, 950, 100)
        with pytest.raises(StoreDamaged, match=r"s-2.tar: ends at byte 1000, 5010 are needed"):
            source.read(2, 5000, 10)

    def test_descriptors_are_bounded_and_given_back(self, paths, monkeypatch):
        monkeypatch.setattr(module, "OPEN_SHARDS", 2)
        before = set(Path("/proc/self/fd").iterdir())
        source = LocalShards("tiny", paths)
        found = spans(*[(i % 3, i * 100_000 % 190_000, 10) for i in range(9)])
        assert [bytes(each) for each in source.read_many(found)] == expected(found)
        assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 3  # the listing itself needs one
        del source
        assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 1

    def test_works_in_a_forked_child(self, source):
        source.read(0, 0, 1)
        child = os.fork()
        if child == 0:
            good = bytes(source.read(0, 3, 4)) == SHARDS[0][3:7] and bytes(source.read(1, 3, 4)) == SHARDS[1][3:7]
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert source.read(0, 3, 4) == SHARDS[0][3:7]


def test_runs_join_neighbours_only():
    found = runs(spans((0, 0, 10), (0, 10 + GAP, 10), (0, 30 + 2 * GAP, 5), (1, 0, 5), (1, 6, 5), (1, 12, 5)))
    assert found is not None
    assert [(run.shard, run.start, run.end) for run in found] == [
        (0, 0, 20 + GAP),
        (0, 30 + 2 * GAP, 35 + 2 * GAP),
        (1, 0, 17),
    ]
    assert found[2].members == [(3, 0, 5), (4, 6, 11), (5, 12, 17)]


def test_runs_do_not_grow_without_bound():
    rows = [(0, i * 4096, 4096) for i in range(3 * RUN // 4096)]
    found = runs(spans(*rows))
    assert found is not None and len(found) == 3
    assert all(run.end - run.start <= RUN + 4096 for run in found)


def test_large_neighbours_are_not_joined():
    assert runs(spans(*[(0, i * LARGE, LARGE) for i in range(4)])) is None
    assert runs(spans(*[(0, i * LARGE, LARGE - 1) for i in range(4)])) is not None


def test_few_neighbours_are_not_worth_it():
    assert runs(spans(*[(0, i * 100_000, 10) for i in range(10)], (0, 20, 10))) is None
