from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datahub.core import digests
from datahub.core.digests import Digest, MultiHash
from datahub.core.errors import DigestMismatch
from datahub.core.sizes import format_bytes, parse_bytes


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_pieces_hash_as_the_whole(pieces: list[bytes]) -> None:
    hashes = MultiHash(("sha256", "md5"))
    for piece in pieces:
        hashes.update(piece)
    whole = b"".join(pieces)
    assert hashes.digests() == (
        Digest("sha256", hashlib.sha256(whole).hexdigest()),
        Digest("md5", hashlib.md5(whole).hexdigest()),
    )
    assert hashes.bytes == len(whole)


def test_a_file_larger_than_a_chunk(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "f").write_bytes(data)
    found = digests.of_file(tmp_path / "f")
    assert found.digests()[0].hex == hashlib.sha256(data).hexdigest()
    with pytest.raises(DigestMismatch) as caught:
        found.check("f", [Digest("sha256", "0" * 64)])
    assert caught.value.expected == "sha256:" + "0" * 64
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "text",
    ["sha256", "sha256:sha256", "sha256:" + "G" * 64, "md5:" + "a" * 31, "sha1:" + "a" * 40, "sha256:" + "A" * 64],
)
def test_a_digest_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a digest"):
        Digest.parse(text)


@pytest.mark.parametrize(
    ("text", "count"), [("500GB", 500 * 10**9), ("64MiB", 64 << 20), ("1.5k", 1500), ("7", 7), (" 2 TB ", 2 * 10**12)]
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 XB", "1e9"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1_648_877, "1.6 MB"), (10**15, "1000.0 TB")])
def test_sizes_are_written(count: int, text: str) -> None:
    assert format_bytes(count) == text
