"""What is read soonest stays, and what was foreseen is known to every process for a while."""

from __future__ import annotations

import bisect
import math
import random
import string
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.store.cache.foreseen import LASTS, NAME, Foreseen
from datahub.store.cache.policy import HOT, Entry, dispensable

NOW = 1_000_000.0
KEYS = [bytes([number]) * 32 for number in range(6)]
entries = st.lists(
    st.builds(
        Entry,
        key=st.text(string.hexdigits, min_size=1, max_size=3),
        bytes=st.integers(1, 100),
        tag=st.sampled_from("abc"),
        used=st.floats(NOW - 1000, NOW),
    ),
    unique_by=lambda entry: entry.key,
    min_size=1,
    max_size=40,
)


@given(entries, st.data())
def test_a_block_that_goes_is_never_needed_sooner_than_one_that_stays(found, data):
    times = st.one_of(st.floats(0, 1e6), st.just(math.inf))
    due = data.draw(st.dictionaries(st.sampled_from([each.key for each in found]), times))
    wanted = data.draw(st.sets(st.sampled_from([each.key for each in found])))
    held = data.draw(st.sets(st.sampled_from("abc")))
    order = dispensable(found, wanted, NOW, held=held, due=due)
    assert not {each.key for each in order} & wanted and not {each.tag for each in order} & held
    assert len(order) == sum(each.key not in wanted and each.tag not in held for each in found)
    for gone, kept in pairwise(order):
        if due.get(gone.key, math.inf) < math.inf:  # what nobody announced goes before it
            hot = [NOW - each.used <= HOT for each in (gone, kept)]
            assert due.get(kept.key, math.inf) <= due[gone.key] or hot == [False, True]
        elif gone.key in due:
            assert kept.key in due or NOW - kept.used <= 1000


@given(entries)
def test_where_nothing_is_foreseen_nothing_changes(found):
    assert dispensable(found, (), NOW, due={}) == dispensable(found, (), NOW)
    assert dispensable(found, (), NOW, lru=True, due={each.key: 1.0 for each in found}) == dispensable(
        found, (), NOW, lru=True
    )


def test_every_process_knows_what_one_foresees_until_it_is_old(tmp_path):
    now = [100.0]
    one, two = (Foreseen(tmp_path, lambda: now[0]) for _ in range(2))
    assert two.due() == {}
    one.write(b"".join(KEYS[:2]), np.array([1.5, math.inf]))
    assert two.due() == {KEYS[0].hex(): 1.5, KEYS[1].hex(): math.inf}
    one.write(KEYS[2], np.array([7.0]))
    assert two.due() == {KEYS[2].hex(): 7.0}
    now[0] += LASTS + 1
    assert two.due() == {}
    one.write(KEYS[2], np.array([7.0]))
    one.forget()
    assert two.due() == {} and Foreseen(tmp_path, lambda: now[0]).due() == {}


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_a_damaged_file_foresees_nothing(tmp_path, cut):
    one = Foreseen(tmp_path, lambda: 0.0)
    one.write(KEYS[0], np.array([1.0]))
    data = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(data[:cut])
    assert Foreseen(tmp_path, lambda: 0.0).due() == {}
    (tmp_path / NAME).write_bytes(data.replace(b'"boot": "', b'"boot": "x'))
    assert Foreseen(tmp_path, lambda: 0.0).due() == {}


def missed(announced: bool, jobs: int, room: int = 50, blocks: int = 100, epochs: int = 6) -> float:
    """The share of reads that miss: jobs read the same blocks in orders of their own, at one pace."""
    rng = random.Random(3)
    orders = [[each for _ in range(epochs) for each in rng.sample(range(blocks), blocks)] for _ in range(jobs)]
    reads = [block for turn in zip(*orders, strict=True) for block in turn]
    when: dict[int, list[int]] = {}
    for at, block in enumerate(reads):
        when.setdefault(block, []).append(at)
    held: dict[int, Entry] = {}
    counted = range(2 * jobs * blocks, (epochs - 1) * jobs * blocks)
    count = 0
    for at, block in enumerate(reads):
        if block not in held:
            count += at in counted
            if len(held) == room:
                coming = {each: bisect.bisect_left(when[each], at) for each in held if announced}
                due = {f"{each}": float(when[each][n]) for each, n in coming.items() if n < len(when[each])}
                del held[int(dispensable(held.values(), (), NOW + 2 * HOT * at, due=due)[0].key)]
        held[block] = Entry(f"{block}", 1, "a", NOW + 2 * HOT * at)
    return count / len(counted)


def test_two_jobs_that_announce_their_orders_miss_less_than_a_third():
    """The reason for announcing. One job alone gains nothing: what it just read is what it needs last anyway."""
    assert missed(True, jobs=2) < 0.33 < 0.45 < missed(False, jobs=2)
    assert abs(missed(True, jobs=1) - missed(False, jobs=1)) < 0.05
