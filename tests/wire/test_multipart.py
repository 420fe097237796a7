"""Answers with several ranges: what is written is read, however it comes in pieces, and nothing else is."""

from __future__ import annotations

from itertools import chain, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.wire.multipart import Unlike, boundary_of, end_of, head_of, parts
from datahub.wire.ranges import Range

WHOLE = bytes(range(256)) * 20
SPANS = (Range(0, 3), Range(3, 4), Range(100, 3000), Range(5000, 5120))


def body(spans=SPANS, boundary="xyz"):
    inside = [head_of(boundary, "image/jpeg", each, len(WHOLE)) + WHOLE[each.start : each.end] for each in spans]
    return b"".join([*inside, end_of(boundary)])


def chunks(data, sizes):
    at = 0
    for size in sizes:
        if at < len(data):
            yield data[at : at + size]
            at += size
    if at < len(data):
        yield data[at:]


@given(st.lists(st.integers(1, 400), max_size=40))
def test_what_is_written_is_read_in_any_pieces(sizes):
    coming = chunks(body(), sizes)
    assert list(parts(coming, "xyz", SPANS)) == [WHOLE[each.start : each.end] for each in SPANS]
    assert next(coming, None) is None  # to the end: the connection can be used again


def test_what_never_ends_is_not_read_to_its_end():
    endless = iter(lambda: b"x" * 100, None)
    found = parts(chain([body()], endless), "xyz", SPANS)
    assert list(islice(found, len(SPANS))) == [WHOLE[each.start : each.end] for each in SPANS]
    assert next(found, None) is None


@given(st.integers(0, len(body()) - len(end_of("xyz")) - 1), st.lists(st.integers(1, 400), max_size=40))
def test_an_answer_that_ends_early_is_no_answer(cut, sizes):
    found = []
    with pytest.raises(Unlike):
        found.extend(parts(chunks(body()[:cut], sizes), "xyz", SPANS))
    assert found == [WHOLE[each.start : each.end] for each in SPANS[: len(found)]]


@given(st.binary(max_size=3000), st.integers(0, len(body())))
def test_other_bytes_give_no_sample_of_another_place(noise, at):
    """They may stand in a sample, which its digest then refuses; never do they move one."""
    found = []
    try:
        for each in parts(iter([body()[:at] + noise + body()[at:]]), "xyz", SPANS):
            found.append(each)
    except Unlike:
        pass
    assert [len(each) for each in found] == [each.size for each in SPANS[: len(found)]]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (body(SPANS[1:]), "in place of bytes=0-2"),
        (body(boundary="other"), "has no head"),
        (b"\r\n--xyz\r\nContent-Type: a/b\r\n\r\nabc", "has no head"),
        (b"x" * 5000, "has no end"),
        (WHOLE, "has no end"),
        (b"", "ends within"),
    ],
    ids=["other ranges", "another boundary", "no range", "no head", "the whole file", "nothing"],
)
def test_other_answers_are_refused(sent, reason):
    with pytest.raises(Unlike, match=reason):
        list(parts(iter([sent]), "xyz", SPANS))


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ("multipart/byteranges; boundary=abc", "abc"),
        ('Multipart/ByteRanges; boundary="a b"', "a b"),
        ("multipart/byteranges", None),
        ("image/jpeg; boundary=abc", None),
        ("", None),
    ],
)
def test_boundaries(kind, boundary):
    assert boundary_of(kind) == boundary
