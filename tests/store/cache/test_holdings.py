"""Pins, leases, and evicting by hand."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.store.cache import ledger, policy
from datahub.store.cache.blockcache import BlockCache
from datahub.store.cache.holdings import Holdings
from datahub.store.cache.ledger import Hold
from tests.store.cache.test_blockcache import SIZE, Counting, block, content, on_disk
from tests.store.cache.test_policy import NOW, entries

TAG = block(0).tag


@pytest.fixture
def cache(tmp_path):
    made = BlockCache(tmp_path / "cache", 10 * SIZE)
    yield made
    made.close()


def filled(cache, *numbers):
    for number in numbers:
        assert cache.fill(block(number), Counting(number), seconds=5) == content(number)


def test_what_is_held_stays_and_others_are_handed_through(cache):
    holdings = Holdings(cache)
    filled(cache, *range(10))
    assert holdings.hold(TAG, "", 10 * SIZE).granted
    filled(cache, *range(10, 15))  # of the same tag: nothing may go for them
    assert [number for number in range(15) if cache.has(block(number))] == list(range(10))
    assert holdings.evict(TAG) is None and holdings.trim(0) == 0
    assert holdings.end("", TAG) == 1 and holdings.end("", TAG) == 0
    filled(cache, *range(10, 15))
    assert all(cache.has(block(number)) for number in range(10, 15))


def test_a_lease_is_granted_where_all_that_is_held_fits(cache):
    holdings = Holdings(cache)
    assert holdings.hold("a", "one", 6 * SIZE, 60).granted
    refused = holdings.hold("b", "two", 5 * SIZE, 60)
    assert (refused.granted, refused.room, [each.tag for each in refused.held]) == (False, 4 * SIZE, ["a"])
    assert holdings.hold("b", "two", 4 * SIZE, 60).granted
    assert holdings.hold("a", "three", 6 * SIZE, 60).granted  # it is held once, whoever wants it
    assert holdings.end("one") == 1 and not holdings.hold("b", "two", 5 * SIZE, 60).granted
    assert holdings.end("three") == 1 and holdings.hold("b", "two", 10 * SIZE, 60).granted


def test_a_lease_ends_and_is_renewed(cache):
    holdings = Holdings(cache)
    holdings.hold("a", "one", SIZE, 0.05)
    holdings.hold("b", "two", SIZE, 0.05)
    assert holdings.renew("two", 60) == 1
    time.sleep(0.1)
    assert [each.tag for each in holdings.all()] == ["b"]
    assert holdings.renew("one", 60) == 0
    assert holdings.renew("two", 5) == 1 and (holdings.all()[0].left(time.time(), "") or 0) > 50, "never shortened"


def test_a_clock_that_is_set_ends_no_lease(cache, monkeypatch):
    holdings = Holdings(cache)
    holdings.hold("a", "one", SIZE, 60)
    with cache.books() as (books, _, _limit):
        assert [each.tag for each in books.holds(time.time() + 86400)] == ["a"]
        monkeypatch.setattr(ledger, "boot", lambda: "another")  # after a restart of the machine only the date is left
        assert [each.tag for each in books.holds(time.time())] == ["a"]
        assert books.holds(time.time() + 86400) == []


def test_holds_outlive_the_process_that_made_them(cache):
    Holdings(cache).hold("a", "", SIZE)
    cache.close()
    other = BlockCache(cache.folder, 10 * SIZE)
    assert [(each.tag, each.name) for each in Holdings(other).all()] == [("a", "")]
    other.close()


def test_evicting_leaves_what_is_wanted_and_what_is_read(cache):
    holdings = Holdings(cache)
    filled(cache, *range(6))
    cache.want([block(0).key, block(1).key])
    opened = cache.lend(block(2))
    assert opened is not None
    found = holdings.evict(TAG)
    assert found is not None and (found.freed, found.kept) == (3 * SIZE, 3 * SIZE)
    assert [number for number in range(6) if cache.has(block(number))] == [0, 1, 2]
    import os

    os.close(opened.descriptor)
    assert holdings.sizes() == {TAG: 3 * SIZE}


def test_trimming_goes_down_to_the_mark(cache):
    holdings = Holdings(cache)
    filled(cache, *range(9))
    assert holdings.trim(4 * SIZE) == 5 * SIZE
    assert cache.usage().bytes == on_disk(cache.folder) == 4 * SIZE
    assert holdings.trim(4 * SIZE) == 0


def test_least_recently_used_goes_first_where_that_is_wanted(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("datahub.store.cache.notes.time.time", lambda: now[0])
    cache = BlockCache(tmp_path / "lru", 4 * SIZE, lru=True)
    for number in range(4):
        now[0] += 100
        filled(cache, number)
    now[0] += 100
    assert cache.read(block(0)) is not None
    cache.close()  # what was read goes on the books
    filled(cache, 7)
    assert [number for number in range(8) if cache.has(block(number))] == [0, 3, 7]  # a little more than must be went
    cache.close()


@given(entries, st.sets(st.sampled_from("abc")), st.booleans())
def test_no_policy_lets_go_of_what_is_held(found, held, lru):
    order = policy.dispensable(found, (), NOW, held=held, lru=lru)
    assert sorted(each.key for each in order) == sorted(each.key for each in found if each.tag not in held)
    if lru:
        assert [each.used for each in order] == sorted(each.used for each in order)


def test_a_pin_has_no_end():
    assert Hold("a", "", 1).left(NOW, "boot") is None
