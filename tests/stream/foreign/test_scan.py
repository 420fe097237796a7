"""What a scan finds is what webdataset reads: the same samples, the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_iterator

from datahub.core.errors import LayoutError, UnsafeArchive
from datahub.stream.foreign import windows
from datahub.stream.foreign.scan import Scanned, scan
from datahub.stream.foreign.windows import StreamedBytes, local_bytes
from tests.stream.foreign.shards import image, sample, tar

BLOCK = 1 << 12


def scanned(data: bytes, path: Path) -> tuple[Scanned, str]:
    path.write_bytes(data)
    with local_bytes(str(path)) as window:
        return scan(window), window.seen


def streamed(data: bytes) -> tuple[Scanned, str, bytes]:
    def fetch(number: int) -> tuple[bytes, bytes]:
        block = data[number * windows.BLOCK : (number + 1) * windows.BLOCK]
        return block, sha256(block).digest()

    with ThreadPoolExecutor(4) as pool:
        window = StreamedBytes("a.tar", len(data), fetch, pool)
        found = scan(window)
        return found, window.seen, window.finish()


def webdatasets(data: bytes) -> list[dict[str, Any]]:
    files = tar_file_iterator(io.BytesIO(data))  # type: ignore[arg-type]
    return list(group_by_keys({**each, "__url__": ""} for each in files))


def rows(found: Scanned, data: bytes) -> list[dict[str, Any]]:
    columns = found.columns
    made = []
    for at, key in enumerate(columns["key"]):
        start = columns["image_offset"][at]
        made.append({"__key__": key, columns["extension"][at]: data[start : start + columns["image_size"][at]]})
        for name, (offset, size) in json.loads(columns["others"][at] or "{}").items():
            made[-1][name] = data[offset : offset + size]
    return made


KEYS = st.sampled_from(["0", "1", "a/0", "a.b/0", "deep/" * 30 + "x", "./0", "käse/日本", "no", "__meta__/x", "__i__"])
KINDS = st.sampled_from(["png", "PNG", "jpg", "seg.png", "npy", "bin", "tar", "x.y.z"])
NAMED = st.lists(st.tuples(KEYS, KINDS, st.integers(0, 3)), max_size=12)


@given(NAMED, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
@settings(max_examples=60, deadline=None)
def test_the_samples_are_webdatasets(tmp_path_factory: Any, names: list[tuple[str, str, int]], format: int) -> None:
    members = [(f"{key}.{kind}", image(number)[: 90 * number]) for key, kind, number in names]
    if format == tarfile.USTAR_FORMAT:
        members = [(name, data) for name, data in members if name.isascii()]
    data = tar(members, format)
    path = tmp_path_factory.getbasetemp() / "property.tar"
    try:
        expected = webdatasets(data)
    except ValueError:
        with pytest.raises(LayoutError, match="is there twice"):
            scanned(data, path)
        return
    found, seen = scanned(data, path)
    kept = [each for each in expected if {"png", "jpg"} & set(each)]
    assert rows(found, data) == [{name: value for name, value in each.items() if name != "__url__"} for each in kept]
    again, seen_too, _ = streamed(data)
    assert seen_too == seen, "how the bytes came does not show"
    assert again.columns["sha256"] == [sha256(each.get("jpg", each.get("png", b""))).hexdigest() for each in kept]


def test_blocks_are_digested_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(windows, "BLOCK", BLOCK)
    big = os.urandom(9 * BLOCK)
    data = tar([*sample(1), ("000001.bin", big), *sample(2, json=b'{"a": 1}'), ("end.bin", big)])
    found, seen, raw = streamed(data)
    assert raw == b"".join(sha256(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK))
    locally, seen_locally = scanned(data, tmp_path / "a.tar")
    assert seen == seen_locally
    assert {**found.columns, "sha256": []} == {**locally.columns, "sha256": []}


def test_what_is_read_of_a_sample(tmp_path: Path) -> None:
    data = tar([*sample(5, json=b'{"b": [1, null], "a": "x"}', txt="grün".encode(), npy=b"123")])
    columns = scanned(data, tmp_path / "a.tar")[0].columns
    assert {
        name: values for name, values in columns.items() if name not in ("image_offset", "image_size", "others")
    } == {
        "key": ["000005"],
        "source": ["000005.png"],
        "extension": ["png"],
        "width": [10],
        "height": [12],
        "format": ["png"],
        "sha256": [""],
        "cls": ["2"],
        "json": ['{"a": "x", "b": [1, null]}'],
        "text": ["grün"],
    }


def test_an_image_whose_size_comes_late(tmp_path: Path) -> None:
    jpeg = image(1, kind="JPEG")
    late = jpeg[:2] + b"".join(b"\xff\xe1\xff\xff" + bytes(65533) for _ in range(2)) + jpeg[2:]
    found, seen = scanned(tar([("a.jpg", late)]), tmp_path / "a.tar")
    assert (found.columns["width"], found.columns["height"]) == ([10], [12])
    assert streamed(tar([("a.jpg", late)]))[:2][1] == seen


def test_empty_shards_have_no_samples(tmp_path: Path) -> None:
    assert not scanned(tar([]), tmp_path / "a.tar")[0].columns["key"]
    assert not scanned(bytes(1024), tmp_path / "a.tar")[0].columns["key"]


WHOLE = tar([*sample(0), *sample(1)])


def linked() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "a.tar: not a tar archive"),
        (b"<html>" + bytes(2000), "a.tar: not a tar archive"),
        (WHOLE[:600], r"000000\.png: truncated"),
        (WHOLE[:2048], "without an end mark"),
        (WHOLE[:2100], "truncated: the archive ends at byte 2100"),
        (gzip.compress(WHOLE), r"is compressed \(gzip\).*`datahub pack 'wds:.*a.tar' NAME`"),
        (tar([("0.cls", b"1")]), r"0\.cls: has no image beside it"),
        (tar([("0.png", image(0)), ("0.PNG", image(0))]), r"0\.PNG: is there twice"),
        (tar([("0.png", image(0)), ("0.json", bytes(1 << 21))]), "too many for a text"),
        (tar([("../0.png", image(0))]), r"'\.\.' in its name"),
        (linked(), "is a symbolic link"),
    ],
)
def test_what_is_wrong_is_told_with_the_member(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises((LayoutError, UnsafeArchive), match=what):
        scanned(data, tmp_path / "a.tar")
    with pytest.raises((LayoutError, UnsafeArchive), match=what):
        streamed(data)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_damaged_shards_are_refused_or_read(tmp_path_factory: Any, chance: st.DataObject) -> None:
    data = bytearray(WHOLE)
    for _ in range(chance.draw(st.integers(1, 3))):
        data[chance.draw(st.integers(0, len(data) - 1))] = chance.draw(st.integers(0, 255))
    data = data[: chance.draw(st.integers(0, len(data)))]
    try:
        found, _ = scanned(bytes(data), tmp_path_factory.getbasetemp() / "fuzzed.tar")
    except (LayoutError, UnsafeArchive):
        return
    assert all(
        offset + size <= len(data)
        for offset, size in zip(found.columns["image_offset"], found.columns["image_size"], strict=True)
    )
