from __future__ import annotations

import hashlib
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.core.digests import BLOCK
from datahub.core.errors import RecordInvalid
from datahub.store import blocks, record

SIZES = st.one_of(
    st.integers(0, 5000),
    st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 7]),
)


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@settings(deadline=None, max_examples=30)
@given(SIZES, st.lists(st.integers(0, 2 * BLOCK + 7), max_size=6))
def test_any_pieces_give_the_digests_of_the_whole(size: int, cuts: list[int]) -> None:
    data = content(size)
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    hasher = blocks.BlockHasher()
    for start, end in pairwise(edges):
        hasher.update(memoryview(data)[start:end])
    found = hasher.result()
    expected = b"".join(hashlib.sha256(data[at : at + BLOCK]).digest() for at in range(0, size, BLOCK))
    assert found == blocks.FileDigests(size, hashlib.sha256(data).hexdigest(), expected)
    assert len(found.raw) == blocks.WIDTH * blocks.count(size)
    assert found.blocks == hashlib.sha256(expected).hexdigest()


@settings(deadline=None, max_examples=20)
@given(st.lists(SIZES, min_size=1, max_size=4))
def test_what_is_written_is_read_a_file_at_a_time(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    digests = [blocks.of_bytes(content(size)) for size in sizes]
    entries = [
        record.FileEntry(path=f"f{n}", role="shard", bytes=each.bytes, sha256=each.sha256, blocks=each.blocks)
        for n, each in enumerate(digests)
    ]
    blocks.write(folder, (each.raw for each in digests))
    assert (folder / "blocks.bin").stat().st_size == blocks.size(entries)
    found = blocks.read(folder, entries)
    assert [found[entry.path] for entry in entries] == [each.raw for each in digests]
    assert all(blocks.intact(entry, found[entry.path]) for entry in entries)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_changed_blocks_are_numbered(seed: bytes, data: st.DataObject) -> None:
    before = b"".join(hashlib.sha256(bytes([byte, n])).digest() for n, byte in enumerate(seed))
    wrong = data.draw(st.sets(st.integers(0, len(seed) - 1)))
    after = bytearray(before)
    for number in wrong:
        after[number * blocks.WIDTH] ^= 1
    assert blocks.changed(before, bytes(after)) == sorted(wrong)


def test_files_and_bytes_agree(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content(BLOCK + 1))
    assert blocks.of_file(tmp_path / "f") == blocks.of_bytes(content(BLOCK + 1))


def test_the_halves_of_an_update_may_run_apart() -> None:
    whole, halves = blocks.BlockHasher(), blocks.BlockHasher()
    data = content(BLOCK + 5)
    whole.update(data)
    for piece in (data[:100], data[100:]):
        halves.update_whole(piece)
    halves.update_blocks(data)
    assert halves.result() == whole.result()


def test_another_length_is_refused(folder: Path) -> None:
    entries = record.read(folder).files
    with (folder / "blocks.bin").open("ab") as handle:
        handle.write(b"x")
    with pytest.raises(RecordInvalid, match="bytes, the files of the record need"):
        blocks.read(folder, entries)
    (folder / "blocks.bin").unlink()
    with pytest.raises(RecordInvalid, match="missing"):
        blocks.read(folder, entries)
