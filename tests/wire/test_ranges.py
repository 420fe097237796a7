"""Range headers: every form of one range, and everything that is not one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.wire.ranges import MOST, Range, Unsatisfiable, header_of, parse, parse_many

NUMBERS = st.integers(0, 50) | st.integers(0, 10**40)


@given(NUMBERS, st.none() | NUMBERS, st.integers(0, 40))
def test_first_and_last(first, last, total):
    header = f"bytes={first}-{'' if last is None else last}"
    covered = [at for at in range(total) if at >= first and (last is None or at <= last)]
    if last is not None and last < first:
        assert parse(header, total) is None
    elif not covered:
        with pytest.raises(Unsatisfiable):
            parse(header, total)
    else:
        assert parse(header, total) == Range(covered[0], covered[-1] + 1)


@given(NUMBERS, st.integers(0, 40))
def test_suffix(count, total):
    covered = range(total)[-min(count, total) :] if count and total else []
    if not covered:
        with pytest.raises(Unsatisfiable):
            parse(f"bytes=-{count}", total)
    else:
        assert parse(f"bytes=-{count}", total) == Range(covered[0], total)


@given(st.text(st.sampled_from("bytes=-, 0123456789\t;x\u0661"), max_size=30), st.integers(0, 30))
def test_anything_is_a_range_inside_or_none(header, total):
    try:
        found = parse(header, total)
    except Unsatisfiable:
        return
    assert found is None or 0 <= found.start < found.end <= total


@given(st.integers(1, 2000))
def test_thousands_of_ranges_are_the_whole(count):
    assert parse("bytes=" + ",".join(["0-0"] * (count + 1)), 10) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=6), st.integers(0, 60))
def test_several_ranges_ascend_inside_or_the_whole_is_sent(pairs, total):
    spans = [Range(first, last + 1) for first, last in pairs]
    header = ",".join(f"{first}-{last}" for first, last in pairs)
    taken = [at for each in spans for at in range(each.start, min(each.end, total))]
    right = taken == sorted(set(taken)) and all(each.start < min(each.end, total) for each in spans)
    found = parse_many(f"bytes={header}", total)
    assert found == (tuple(Range(each.start, min(each.end, total)) for each in spans) if right else ())


def test_so_many_ranges_and_no_more():
    spans = [Range(2 * at, 2 * at + 1) for at in range(MOST + 1)]
    assert parse_many(header_of(spans[:-1]), 1000) == tuple(spans[:-1])
    assert parse_many(header_of(spans), 1000) == ()
    assert parse_many("bytes=5-7", 10) == (Range(5, 8),)
    with pytest.raises(Unsatisfiable):
        parse_many("bytes=10-", 10)


def test_round_trip():
    span = Range(3, 9)
    assert parse(span.header(), 100) == span
    assert (span.content(100), span.size) == ("bytes 3-8/100", 6)
