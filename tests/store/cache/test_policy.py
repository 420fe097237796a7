"""What may be evicted, and in what order."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from datahub.store.cache.policy import HOT, IDLE, Entry, dispensable, idle, to_free

NOW = 1_000_000.0
entries = st.lists(
    st.builds(
        Entry,
        key=st.text(string.hexdigits, min_size=1, max_size=3),
        bytes=st.integers(1, 100),
        tag=st.sampled_from("abc"),
        used=st.floats(NOW - 3 * IDLE, NOW),
    ),
    unique_by=lambda entry: entry.key,
    max_size=40,
)


@given(entries, st.data())
def test_all_but_the_wanted_may_go_once_each(found, data):
    wanted = set(data.draw(st.lists(st.sampled_from([e.key for e in found]) if found else st.nothing(), unique=True)))
    order = dispensable(found, wanted, NOW)
    assert sorted(e.key for e in order) == sorted(e.key for e in found if e.key not in wanted)


def test_times_of_a_clock_that_was_set_back_say_nothing():
    """Blocks that were read "tomorrow" go before those that are read today."""
    found = [Entry("old", 1, "a", NOW + 86400), Entry("new", 1, "a", NOW - 1), Entry("other", 1, "b", NOW - 2)]
    for lru in (False, True):
        assert [each.key for each in dispensable(found, (), NOW, lru=lru)] == ["old", "other", "new"]


@given(entries)
def test_idle_datasets_go_first_and_what_is_hot_last(found):
    order = dispensable(found, (), NOW)
    latest = {tag: max(e.used for e in found if e.tag == tag) for tag in {e.tag for e in found}}
    kinds = [0 if NOW - latest[e.tag] > IDLE else 1 if NOW - e.used > HOT else 2 for e in order]
    assert kinds == sorted(kinds)
    for kind, sign in ((0, 1), (1, -1), (2, 1)):
        times = [sign * e.used for e, k in zip(order, kinds, strict=True) if k == kind]
        assert times == sorted(times)


@given(st.integers(1, 100), st.integers(0, 1000), st.integers(100, 1000))
def test_enough_is_freed_and_little_more(needed, total, limit):
    freed = to_free(needed, total, limit)
    assert total + needed - freed <= limit
    assert freed == 0 or freed <= total + needed - limit + limit // 64


def test_half_a_cache_serves_half_of_every_epoch():
    """The reason for the order: 100 blocks, room for 50, each read once an epoch in an order of its own."""
    import random

    rng = random.Random(3)
    held: dict[str, Entry] = {}
    now, hits, reads = 0.0, 0, 0
    for epoch in range(8):
        for number in rng.sample(range(100), 100):
            now += 2 * HOT / 10
            key = str(number)
            reads += epoch > 1
            hits += epoch > 1 and key in held
            if key not in held and len(held) == 50:
                del held[dispensable(held.values(), (), now)[0].key]
            held[key] = Entry(key, 1, "a", now)
    assert hits / reads > 0.4


@given(entries)
def test_of_idle_datasets_everything_and_of_others_nothing(found):
    latest = {tag: max(e.used for e in found if e.tag == tag) for tag in {e.tag for e in found}}
    assert idle(found, NOW) == [e for e in found if NOW - latest[e.tag] > IDLE]
    assert idle([Entry("ahead", 1, "a", NOW + 86400)], NOW)[0].used == 0.0
