"""Archives as streams: regular members only, whatever the archive says; nothing is ever written to disk."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datahub.core.errors import LayoutError, NotReadable, UnsafeArchive
from datahub.pack.archives import DEFAULT, Limits, find, walk, walk_tar

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".bz2": bz2.compress,
}
MEMBERS = {
    "d/a.txt": b"first",
    "d/empty": b"",
    "d/block": bytes(512),
    f"d/{'long' * 60}.bin": bytes(range(256)) * 9000,
    "d/ünïcode": b"last",
}


def tar(entries: dict[str, bytes] | list[tarfile.TarInfo], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for each in entries:
            data = b""
            if isinstance(each, str):
                assert isinstance(entries, dict)
                each, data = tarfile.TarInfo(each), entries[each]
                each.size = len(data)
            archive.addfile(each, io.BytesIO(data))
    return buffer.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


def header(name: bytes, size: int, kind: bytes = b"0", field: bytes | None = None) -> bytes:
    """One raw header, for what tarfile would not write."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:107], block[108:115], block[116:123] = b"0000644", b"0000000", b"0000000"
    block[124:136] = field if field is not None else b"%011o\0" % size
    block[136:147], block[156:157], block[257:265] = b"00000000000", kind, b"ustar\00000"
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * 32)
    return bytes(block)


def file(folder: Path, data: bytes, name: str = "archive") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def contents(path: Path, limits: Limits = DEFAULT) -> dict[str, bytes]:
    return {member.name: member.read() for member in walk(path, limits)}


def refused(path: Path, limits: Limits = DEFAULT) -> UnsafeArchive:
    with pytest.raises(UnsafeArchive) as caught:
        for member in walk(path, limits):
            member.read()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return caught.value


def damaged(path: Path) -> str:
    with pytest.raises(LayoutError) as caught:
        contents(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


# -- what must be read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars(tmp_path: Path, suffix: str, form: int) -> None:
    members = {name: data for name, data in MEMBERS.items() if form != tarfile.USTAR_FORMAT or len(name) < 100}
    assert contents(file(tmp_path, PACK[suffix](tar(members, form)))) == members


def test_ustar_prefix_folders_and_old_names(tmp_path: Path) -> None:
    deep = f"{'p' * 60}/{'q' * 60}/{'r' * 90}"
    assert contents(file(tmp_path, tar({deep: b"x"}, tarfile.USTAR_FORMAT))) == {deep: b"x"}
    data = tar([info("d", tarfile.DIRTYPE), info("d/old/", tarfile.AREGTYPE), info("./d/x")])
    assert contents(file(tmp_path, data)) == {"./d/x": b""}
    assert contents(file(tmp_path, bytes(10_240))) == {}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips(tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.mkdir("d")
        for name, data in MEMBERS.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=name == "d/a.txt") as handle:
                handle.write(data)
        archive.comment = b"a comment with PK\5\6 in it"
    assert contents(file(tmp_path, buffer.getvalue())) == MEMBERS


def test_zip64_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    assert b"PK\6\6" in buffer.getvalue()
    assert contents(file(tmp_path, buffer.getvalue())) == MEMBERS


def test_members_are_streams(tmp_path: Path) -> None:
    path = file(tmp_path, tar({"a": b"0123456789", "b": b"next", "c": b"end"}))
    seen = []
    for member in walk(path):
        seen.append((member.name, member.size, member.read(4), member.read(0)))
    assert seen == [("a", 10, b"0123", b""), ("b", 4, b"next", b""), ("c", 3, b"end", b"")]
    with find(path, "b") as member:
        assert (member.read(), member.read(), member.read(1)) == (b"next", b"", b"")
    with pytest.raises(LayoutError, match="has no member 'd'"), find(path, "d"):
        pass
    with pytest.raises(NotReadable):
        contents(tmp_path / "absent")


def test_tars_inside_a_tar(tmp_path: Path) -> None:
    inner = {name: gzip.compress(tar({f"{name}_{i}.jpg": b"%d" % i for i in range(3)})) for name in ("n01", "n02")}
    path = file(tmp_path, tar({f"{name}.tar.gz": data for name, data in inner.items()}))
    found = [each.name for member in walk(path) for each in walk_tar(member, str(path))]
    assert found == [f"{name}_{i}.jpg" for name in inner for i in range(3)]
    bad = file(tmp_path, tar({"n01.tar": tar([info("x", tarfile.SYMTYPE, "/etc")])}), "bad")
    with pytest.raises(UnsafeArchive, match=r"bad/n01.tar: member 'x' is a symbolic link"):
        for member in walk(bad):
            list(walk_tar(member, str(bad)))


# -- what must be refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (info("d/link", tarfile.SYMTYPE, "../../etc/passwd"), "is a symbolic link"),
        (info("d/link", tarfile.LNKTYPE, "d/a.txt"), "is a hard link"),
        (info("d/dev", tarfile.CHRTYPE), "is a character device"),
        (info("d/dev", tarfile.BLKTYPE), "is a block device"),
        (info("d/fifo", tarfile.FIFOTYPE), "is a FIFO"),
        (info("d/odd", b"V"), "is of the unknown type"),
        (info("/etc/passwd"), "has an absolute name"),
        (info("/etc", tarfile.DIRTYPE), "has an absolute name"),
        (info("C:/windows"), "has an absolute name"),
        (info("../up"), "has '..' in its name"),
        (info("d/../../up"), "has '..' in its name"),
        (info("..", tarfile.DIRTYPE), "has '..' in its name"),
        (info("d\\..\\up"), "has a backslash in its name"),
        (info("d/new\nline"), "has a control character"),
        (info("n" * 1025), "of more than 1024 bytes"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_unsafe_tars(tmp_path: Path, entry: tarfile.TarInfo, reason: str, suffix: str) -> None:
    path = file(tmp_path, PACK[suffix](tar([info("fine"), entry])))
    error = refused(path)
    assert reason in error.reason
    assert error.member.rstrip("/") == (entry.name if len(entry.name) < 100 else f"{entry.name[:117]}...")


def test_sparse_members(tmp_path: Path) -> None:
    """10 GB in a few hundred bytes, in GNU's old form and in pax's."""
    size = struct.pack(">BxxxQ", 0x80, 10_000_000_000)
    old = header(b"huge", 0, b"S", size) + bytes(1024)
    assert refused(file(tmp_path, old)).reason == "is a sparse file"
    pax = info("huge")
    pax.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10000000000"}
    error = refused(file(tmp_path, tar([pax])))
    assert (error.member, error.reason) == ("huge", "is a sparse file")


def test_a_million_tiny_members(tmp_path: Path) -> None:
    """The walk ends at the cap, without having kept what came before."""
    path = tmp_path / "tiny.tar.gz"
    with gzip.open(path, "wb", 1) as handle:
        block = header(b"tiny", 1) + b"x" + bytes(511)
        for _ in range(1000):
            handle.write(block * 1000)
    tracemalloc.start()
    began = time.process_time()
    try:
        assert refused(path, Limits(members=20_000)).reason == "is one too many: at most 20000 are read"
        assert time.process_time() - began < 10
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_million_tiny_members_of_a_zip(tmp_path: Path) -> None:
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 1_000_000
    size, start = count * len(entry), len(local)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = file(tmp_path, local + entry * count + wide + locator + end)
    tracemalloc.start()
    try:
        assert "one too many" in refused(path, Limits(members=5_000)).reason
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("limits", "member", "reason"),
    [
        (Limits(members=2), "c", "is one too many"),
        (Limits(name=2), "ccc", "has a name of more than 2 bytes"),
        (Limits(member=999), "b", "holds 1.0 kB: at most 999 B are read"),
        (Limits(total=1500), "c", "brings the total to 2.0 kB, over 1.5 kB"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_caps(tmp_path: Path, limits: Limits, member: str, reason: str, zipped: bool) -> None:
    members = {"a": b"", "b": bytes(1000), "ccc" if limits.name == 2 else "c": bytes(1000)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    path = file(tmp_path, buffer.getvalue() if zipped else tar(members))
    error = refused(path, limits)
    assert error.member == member and reason in error.reason
    assert len(contents(path)) == 3


def test_lying_sizes(tmp_path: Path) -> None:
    huge = struct.pack(">BxxxQ", 0x80, 1 << 62)
    assert "at most" in refused(file(tmp_path, header(b"huge", 0, b"0", huge) + bytes(1024))).reason
    assert "an extended header of" in refused(file(tmp_path, header(b"x", 1 << 30, b"x") + bytes(1024))).reason
    assert "more than 8 extended headers" in refused(file(tmp_path, (header(b"g", 0, b"g")) * 9)).reason
    size = header(b"big", 3 << 30)
    assert "0 bytes instead of 3221225472" in damaged(file(tmp_path, size))


def test_a_pax_record_without_its_length_is_an_error_and_no_hang(tmp_path: Path) -> None:
    entry = info("x" * 200)
    entry.pax_headers = {"comment": "first", "path": entry.name}
    data = bytearray(tar([entry]))
    second = data.index(b"\n", 512) + 1
    data[data.index(b" ", second)] ^= 1  # one bit: no space ends the length
    assert "not in pax form" in damaged(file(tmp_path, bytes(data)))


@pytest.mark.parametrize("keyword", ["path=evil", "size=99", "GNU.sparse.major=1"])
def test_pax_headers_for_the_whole_archive(tmp_path: Path, keyword: str) -> None:
    record = f"{len(keyword) + 4} {keyword}\n".encode()  # two digits, a space and a newline
    data = header(b"g", len(record), b"g") + record.ljust(512, b"\0") + header(b"a", 0) + bytes(1024)
    assert "for the whole archive" in refused(file(tmp_path, data)).reason


def zip_of(entry: zipfile.ZipInfo, data: bytes = b"data") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, data)
    return buffer.getvalue()


def entry(name: str, mode: int = 0, **changed: Any) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = 3, mode << 16
    for key, value in changed.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zip_of(entry("link", stat.S_IFLNK | 0o777), b"/etc/passwd"), "is a symbolic link"),
        (zip_of(entry("dev", stat.S_IFCHR | 0o666)), "is not a regular file"),
        (zip_of(entry("/etc/passwd")), "has an absolute name"),
        (zip_of(entry("a/../../b")), "has '..' in its name"),
        (zip_of(entry("a/../../b/")), "has '..' in its name"),
        (zip_of(entry("a\\b")), "has a backslash in its name"),
        (zip_of(entry("bomb", compress_type=8), bytes(30_000_000)), "inflates 29"),
    ],
)
def test_unsafe_zips(tmp_path: Path, data: bytes, reason: str) -> None:
    assert reason in refused(file(tmp_path, data)).reason


def test_encrypted_zip(tmp_path: Path) -> None:
    data = bytearray(zip_of(entry("a")))
    data[data.rindex(b"PK\1\2") + 8] |= 1
    assert refused(file(tmp_path, bytes(data))).reason == "is encrypted"


# -- what is damaged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACK)
def test_truncated_tars(tmp_path: Path, suffix: str) -> None:
    whole = PACK[suffix](tar(MEMBERS))
    content = len(whole) - 1 if suffix else whole.rstrip(b"\0").__len__()  # what follows is padding
    for cut in {1, 5, 300, 512, 700, 1024, len(whole) // 2, content}:
        if cut < len(whole):
            message = damaged(file(tmp_path, whole[:cut]))
            assert "truncated" in message or "not a tar archive" in message or "damaged" in message, cut


def test_truncated_and_damaged_zips(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in MEMBERS.items():
            archive.writestr(name, data)
    whole = buffer.getvalue()
    for cut in (4, 30, len(whole) // 2, len(whole) - 1):
        assert "truncated" in damaged(file(tmp_path, whole[:cut]))
    spoilt = bytearray(whole)
    spoilt[whole.index(b"d/a.txt") + 9] ^= 0xFF
    assert "d/a.txt" in damaged(file(tmp_path, bytes(spoilt)))
    renamed = whole.replace(b"d/a.txt", b"d/b.txt", 1)  # the member says one name and the directory another
    assert "does not fit the directory" in damaged(file(tmp_path, renamed))


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>no</html>", b"x" * 2000, gzip.compress(b"x" * 2000), b"PK\3\4nothing"],
    ids=["empty", "page", "letters", "letters in gzip", "only a zip's first bytes"],
)
def test_not_an_archive(tmp_path: Path, data: bytes) -> None:
    message = damaged(file(tmp_path, data))
    assert "not a tar archive" in message or "not a zip archive" in message


def test_damaged_headers(tmp_path: Path) -> None:
    whole = tar({"a": b"1", "b": b"2"}, tarfile.USTAR_FORMAT)
    spoilt = whole[:1024] + b"?" + whole[1025:]
    assert "no valid header at byte 1024" in damaged(file(tmp_path, spoilt))
    assert "without an end mark" in damaged(file(tmp_path, whole[:2048]))
    negative = header(b"a", 0, b"0", b"-0000000001\0") + bytes(1024)
    assert "no valid size" in damaged(file(tmp_path, negative))
    for record in (
        b"junk",
        b"99 path=x\n",
        b"8 path=x\n",
        b"0 path=x\n",
        b"10 path=xy",
        b"11 size=-1\n",
        b"11 size=9x\n",
    ):
        data = header(b"x", len(record), b"x") + record.ljust(512, b"\0") + header(b"a", 0) + bytes(1024)
        assert "extended header" in damaged(file(tmp_path, data)), record
    endless = tar({"a": b"1"}) + bytes(17 << 20)
    assert "follow the end" in damaged(file(tmp_path, gzip.compress(endless, 1)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_archives(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever is done to an archive: its members, or one of our errors."""
    small = {"d/a": b"first", "d/b": b"second" * 100, "e": b""}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in small.items():
            archive.writestr(name, content)
    seeds = [tar(small), tar(small, tarfile.GNU_FORMAT)[:4096], gzip.compress(tar(small)), buffer.getvalue()]
    spoilt = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        if data.draw(st.booleans()):
            spoilt[at] = data.draw(st.integers(0, 255))
        else:
            spoilt[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=4))
        if not spoilt:
            break
    path = file(tmp_path, bytes(spoilt))
    try:
        for member in itertools.islice(walk(path), 10):
            assert len(member.read()) == member.size
            assert not member.name.startswith("/") and ".." not in member.name.split("/")
    except (LayoutError, UnsafeArchive):
        return
