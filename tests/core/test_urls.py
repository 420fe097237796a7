"""What is shown of URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.core.errors import BadArgument, ConnectionLost, HttpError
from datahub.core.events import Note
from datahub.core.urls import below, misplaced, shown
from datahub.serve.origins import normal
from datahub.stream.origin import open_files


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://host/a/b.tar", "https://host/a/b.tar"),
        ("https://user:pw@host:8080/a", "https://host:8080/a"),
        ("https://token@host/a", "https://host/a"),
        ("https://user:p@ss@host/a", "https://host/a"),
        ("https://user:p?s#s@host/a", "https://host/a"),
        ("https://host/a?sig=x%2Fy&se=1", "https://host/a"),
        ("datahub+http://host:8080/-/tiny@1.0/published", "datahub+http://host:8080/-/tiny@1.0/published"),
        ("hf://datasets/org/name@main/x", "hf://datasets/org/name@main/x"),
        ("abfs://container@account.dfs.core.windows.net/x", "abfs://container@account.dfs.core.windows.net/x"),
        ("simplecache::s3://key:secret@bucket/x", "simplecache::s3://bucket/x"),
        ("/a/folder/what?x=1", "/a/folder/what?x=1"),
        ("https://u:p@a/x: HTTP 404 (looked at https://u:p@b/y?sig=s, ftp://u:p@c/z).",
         "https://a/x: HTTP 404 (looked at https://b/y, ftp://c/z)."),
        ("pool: url: /x?X-Amz-Signature=abc&b=1 (refused)", "pool: url: /x?X-Amz-Signature=...&b=1 (refused)"),
        ("url: /x?Policy=abc&api-key=d&secret=e&b=1", "url: /x?Policy=...&api-key=...&secret=...&b=1"),
        ("http://a:1/x,https://u:p@b:2/y", "http://a:1/x,https://b:2/y"),
        ("http://a:1,https://u:p@b/y", "http://a:1,https://b/y"),
        ("https://user:p/w@host:8080/a", "https://host:8080/a"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("http://[::1]:8080/a@b", "http://[::1]:8080/a@b"),
        ("http://a:1,http://b/x@y", "http://a:1,http://b/x@y"),
    ],
)  # fmt: skip
def test_what_opens_the_door_is_left_out(url, seen):
    assert shown(url) == seen
    assert shown(seen) == seen


SECRET = "s3cr3t"
PART = st.text("abcXYZ019._~%:@?#&=,;+-", max_size=12)


@given(PART, PART, st.sampled_from(["http", "https", "s3", "ftp"]), st.sampled_from(["{}", "'{}': bad", "({}), next"]))
def test_no_password_or_query_passes(before, after, scheme, sentence):
    for url in (f"{scheme}://{before}{SECRET}{after}@host/p", f"{scheme}://host/p?{before}{SECRET}{after}"):
        assert SECRET not in shown(sentence.format(url))


def test_errors_and_notes_hold_no_secret():
    url = f"https://user:{SECRET}@host/x?sig={SECRET}"
    for error in (HttpError(url, 500), ConnectionLost("x", f"to {url}"), BadArgument("source", url, "is wrong", url)):
        assert SECRET not in f"{error} {error!r} {error.message} {error.next_step}" and "host/x" in str(error)
    assert SECRET not in repr(Note("s", f"{url} failed"))


def test_what_is_below_keeps_the_query():
    assert below("https://h/a/?sig=x", "b/c") == "https://h/a/b/c?sig=x"
    assert below("s3://bucket/a?b", "c") == "s3://bucket/a?b/c"  # a key may hold one
    assert below("memory://", "c") == "memory://c" and below("https://h/a?s=1", "") == "https://h/a?s=1"


@pytest.mark.parametrize(
    "url",
    [
        f"https://u:{SECRET}/x@host/p",
        f"http://u:{SECRET}?@host",
        f"datahub+http://u:{SECRET}#@h",
        f"s3://k:{SECRET}@b/x",
    ],
)
def test_what_others_would_repeat_is_refused_before(url):
    with pytest.raises(BadArgument) as caught:
        open_files(url)
    assert SECRET not in str(caught.value) and caught.value.reason == misplaced(url)
    with pytest.raises(BadArgument) as caught:
        normal(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["https://u:p%2Fx@host:80/p?q=a/b", "http://[::1]:8080", "s3://bucket/a@b", "abfs://c@acc/x", "hf://datasets/a/b@c",
     "memory://x", "datahub+http://h:1/-/a@1/b", "ftp://u:p@h/x"],
)  # fmt: skip
def test_what_can_be_meant_is_not(url):
    assert not misplaced(url)
