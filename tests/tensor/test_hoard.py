"""Bytes kept on a device: what is put there comes back, whatever thread asks, through lanes that do all late."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datahub.tensor.device.hoard import Hoard
from datahub.tensor.device.lanes import Backend, Lane
from datahub.tensor.device.rehearsal import Rehearsal

UNIT = 16


def lanes(backend: Backend, count: int = 2):
    free: SimpleQueue[Lane] = SimpleQueue()
    for _ in range(count):
        free.put(backend.lane())

    @contextmanager
    def lane() -> Iterator[Lane]:
        mine = free.get(timeout=20)
        try:
            yield mine
        finally:
            free.put(mine)

    return lane


def kept(backend: Backend, sizes: list[int]) -> tuple[Hoard, np.ndarray, list[bytes]]:
    """A hoard of noise of some sizes, where each begins, and the noise."""
    rng = np.random.default_rng(0)
    data = [rng.integers(0, 256, size, np.uint8).tobytes() for size in sizes]
    ends = np.cumsum([-(-size // UNIT) * UNIT for size in sizes])
    start = np.concatenate([[0], ends[:-1]])
    hoard = Hoard(int(ends[-1]), UNIT, lanes(backend), backend.device)
    for begin, each in zip(start.tolist(), data, strict=True):
        with hoard.room(begin, begin + len(each)) as memory:
            memory[:] = np.frombuffer(each, np.uint8)
    return hoard, start, data


def check(hoard: Hoard, start: np.ndarray, data: list[bytes], rows: list[int]) -> None:
    size = np.array([len(data[row]) for row in rows], np.int64)
    found = hoard.ranges(start[rows].astype(np.int64), size)
    expected = b"".join(data[row] + bytes(-len(data[row]) % UNIT) for row in rows)
    at = 0
    for row in rows:
        assert found[at : at + len(data[row])].tobytes() == data[row]
        at += -(-len(data[row]) // UNIT) * UNIT
    assert len(found) == len(expected)


@given(st.lists(st.integers(0, 90), min_size=1, max_size=20), st.data())
def test_what_was_put_there_comes_back(sizes, draw):
    hoard, start, data = kept(Rehearsal(), sizes)
    check(hoard, start, data, draw.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=30)))


def threads_at_once(backend: Backend) -> None:
    """More of them than there are lanes; what each has is its own."""
    hoard, start, data = kept(backend, [7 * row % 300 for row in range(60)])
    rng = np.random.default_rng(1)
    asked = [rng.integers(0, 60, 25).tolist() for _ in range(200)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda rows: check(hoard, start, data, rows), asked))


def test_threads_at_once():
    threads_at_once(Rehearsal())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_card():
    from datahub.tensor.device.cuda import Cuda

    threads_at_once(Cuda(0, None))
    hoard, start, data = kept(Cuda(0, None), [100_003, 0, 5, 1 << 20])
    check(hoard, start, data, [3, 0, 1, 2, 3])
