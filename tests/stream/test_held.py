"""Spans held in memory: the bytes of the shards, and what is not held as the shards' own source has it."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.core.errors import ShardCut, StoreDamaged
from datahub.stream import held
from datahub.stream.held import UNIT, HeldShards, Layout, fill, read_what_is_there, room_in
from datahub.stream.memory import Memory
from datahub.stream.source import MemoryShards
from datahub.stream.spans import Spans

SHARDS = [bytes(np.random.default_rng(number).integers(0, 256, 3000, np.uint8)) for number in range(3)]


def spans(*rows: tuple[int, int, int]) -> Spans:
    return Spans(*np.array(rows, np.int64).reshape(-1, 3).T)


def holding(wanted: Spans, source: MemoryShards, workers: int = 2) -> HeldShards:
    layout = Layout.of(wanted)
    memory = Memory.taken(layout.end)
    return HeldShards(fill(layout, source, room_in(memory.flat), workers), memory, source)


places = st.tuples(st.integers(0, 2), st.integers(0, 2900), st.integers(0, 100))


@given(st.lists(places, max_size=30, unique_by=lambda each: each[:2]), st.randoms(use_true_random=False))
def test_what_is_held_is_what_was_read(rows, random):
    source = MemoryShards(SHARDS)
    made = holding(spans(*rows), source)
    source.damaged = {0, 1, 2}  # nothing is read any more
    asked = [random.choice(rows) for _ in range(2 * len(rows))] if rows else []
    found = made.read_many(spans(*asked))
    assert list(map(bytes, found)) == [SHARDS[shard][at : at + size] for shard, at, size in asked]
    assert all(bytes(made.read(*row)) == SHARDS[row[0]][row[1] : row[1] + row[2]] for row in rows)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=40))
def test_pieces_are_all_of_it_once(sizes):
    layout = Layout.placed(np.arange(len(sizes)), np.array(sizes, np.int64))
    assert (layout.start % UNIT == 0).all() and layout.end >= sum(sizes)
    before, held.PIECE = held.PIECE, 4096
    try:
        pieces = layout.pieces()
    finally:
        held.PIECE = before
    assert [place for each in pieces for place in range(each.start, each.stop)] == list(range(len(sizes)))
    ends = layout.start + layout.size
    assert all(ends[each.stop - 1] - layout.start[each.start] < 4096 + 5000 for each in pieces)


def test_many_pieces_are_put_where_they_belong(monkeypatch):
    monkeypatch.setattr(held, "PIECE", 500)
    rows = [(shard, at, 40 + at % 50) for shard in range(3) for at in range(0, 2800, 97)]
    made = holding(spans(*rows), MemoryShards(SHARDS), workers=1)
    assert list(map(bytes, made.read_many(spans(*rows)))) == [SHARDS[n][at : at + size] for n, at, size in rows]


def test_what_is_not_held_is_read_as_it_would_be_without():
    source = MemoryShards(SHARDS)
    made = holding(spans((0, 0, 10), (1, 5, 10)), source)
    mixed = spans((1, 5, 10), (2, 7, 9), (0, 0, 10), (0, 0, 11))  # the last is another span than the held one
    expected = [SHARDS[1][5:15], SHARDS[2][7:16], SHARDS[0][:10], SHARDS[0][:11]]
    assert list(map(bytes, made.read_many(mixed))) == expected
    source.damaged = {2}
    with pytest.raises(StoreDamaged, match="shard 2"):
        made.read_many(mixed)


def test_a_shard_cut_short_lacks_its_own_samples_alone():
    source = MemoryShards([SHARDS[0], SHARDS[1][:20]])
    wanted = spans((0, 0, 10), (1, 5, 10), (1, 15, 10), (1, 40, 10))
    assert read_what_is_there(source, wanted) == [SHARDS[0][:10], SHARDS[1][5:15], None, None]
    made = holding(wanted, source)
    assert bytes(made.read(1, 5, 10)) == SHARDS[1][5:15]
    with pytest.raises(ShardCut, match="bytes 15 to 25"):
        made.read_many(wanted)
    with pytest.raises(StoreDamaged, match="shard 2"):
        holding(spans((0, 0, 10), (2, 0, 10)), source)


def test_nothing_can_be_written_through_what_is_read():
    made = holding(spans((0, 0, 10)), MemoryShards(SHARDS))
    assert memoryview(made.read(0, 0, 10)).readonly


@pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")
def test_another_process_reads_the_same_memory():
    made = holding(spans((0, 0, 10), (2, 7, 9)), MemoryShards(SHARDS))
    data = pickle.dumps(made)
    code = "import pickle, sys; print(bytes(pickle.loads(sys.stdin.buffer.read()).read(2, 7, 9)).hex())"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60, check=True)
    assert bytes.fromhex(done.stdout.decode()) == SHARDS[2][7:16]
    big = Memory.taken(64 << 20)
    assert len(pickle.dumps(big)) < 1000
    assert bytes(pickle.loads(pickle.dumps(Memory(np.frombuffer(b"abc", np.uint8)))).view()) == b"abc"
