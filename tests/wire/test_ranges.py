"""Range headers: every form of one range, and everything that is not one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.wire.ranges import Range, Unsatisfiable, parse

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


def test_round_trip():
    span = Range(3, 9)
    assert parse(span.header(), 100) == span
    assert (span.content(100), span.size) == ("bytes 3-8/100", 6)
