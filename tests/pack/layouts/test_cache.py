"""What a source keeps of its files: loaded once, trimmed to its room, shared by copies of it in one process."""

from __future__ import annotations

import pickle

from datahub.pack.layouts.cache import SOURCES, Cache


class Loads:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bytes:
        self.count += 1
        return bytes(40)


def test_loads_once_and_drops_the_least_used() -> None:
    cache, loads = Cache[bytes]("trim", len, room=100), Loads()
    for key in ("a", "b", "a", "c", "a"):
        cache.get(key, loads)
    assert loads.count == 3
    cache.get("b", loads)  # went when c came, as a had been used since
    assert loads.count == 4


def test_the_newest_stays_whatever_its_size() -> None:
    cache, loads = Cache[bytes]("big", len, room=10), Loads()
    cache.get("a", loads)
    cache.get("a", loads)
    assert loads.count == 1


def test_copies_of_one_source_share_and_others_do_not() -> None:
    loads = Loads()
    original = Cache[bytes]("shared", len)
    original.get("a", loads)
    first, second = pickle.loads(pickle.dumps((original, original)))
    third = pickle.loads(pickle.dumps(original))
    other = pickle.loads(pickle.dumps(Cache[bytes]("another", len)))
    for cache in (first, second, third, other):
        cache.get("a", loads)
    assert loads.count == 3


def test_a_process_forgets_old_sources() -> None:
    loads = Loads()
    sent = [pickle.dumps(Cache[bytes](f"source {i}", len)) for i in range(SOURCES + 1)]
    for each in (*sent, sent[-1], sent[0]):
        pickle.loads(each).get("a", loads)
    assert loads.count == SOURCES + 2
