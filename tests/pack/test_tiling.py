from __future__ import annotations

import fcntl
import io
import os
import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datahub.core.errors import ActionNeeded, MissingTool
from datahub.pack import jpeg, jpegtran, tiling
from datahub.pack.tiletable import MAGIC
from datahub.pack.tiling import NotTiled, Tiler, Tiling, interval, read_table
from tests.pack import jpegs
from tests.pack.huffman import coefficients


@pytest.fixture(scope="module")
def tiler() -> Tiler:
    return Tiler()


def same(first: Tiling, second: Tiling) -> bool:
    return np.array_equal(first.sizes, second.sizes) and np.array_equal(first.bounds, second.bounds)


def marked(data: bytes, tiling: Tiling) -> bytes:
    """The second byte of the marker after each segment."""
    return bytes(data[end - 1] for end in tiling.bounds[1:].tolist())


# -- markers --------------------------------------------------------------------------------------------------------


def test_a_header_says_what_the_image_is() -> None:
    header = jpeg.read(jpegs.encoded(jpegs.picture(131, 77), "420"))
    assert (header.frame, header.precision, header.width, header.height) == (0, 8, 131, 77)
    assert [(c.h, c.v) for c in header.components] == [(2, 2), (1, 1), (1, 1)]
    assert header.mcu == (16, 16) and header.blocks == 6 and header.subsampled == (True, True)
    assert {segment.marker for segment in header.segments} == {jpeg.APP0, jpeg.DQT, 0xC0, jpeg.DHT}


def test_the_colours_of_four_components() -> None:
    ycck = jpegs.saved(jpegs.picture(20, 20), "CMYK")
    assert jpeg.read(ycck).four_colours == ("YCCK" if jpeg.read(ycck).adobe == 2 else "CMYK")
    cmyk = jpegs.patched(ycck, ycck.index(b"Adobe") + 11, b"\0")
    assert jpeg.read(cmyk).four_colours == "CMYK"
    assert jpeg.read(jpegs.patched(cmyk, cmyk.index(b"Adobe") + 11, b"\2")).four_colours == "YCCK"
    assert jpeg.read(jpegs.encoded(jpegs.picture(8, 8))).four_colours is None


@given(st.binary(max_size=200), st.integers(0, 700), st.integers(0, 700))
def test_garbage_gives_a_header_or_a_reason(garbage: bytes, start: int, end: int) -> None:
    whole = jpegs.encoded(jpegs.picture(24, 24))
    for data in (garbage, b"\xff\xd8" + garbage, whole[:start] + garbage + whole[end:], whole[:start]):
        try:
            header = jpeg.read(data)
            jpeg.scans(data, header)
        except ValueError as error:
            assert str(error)
        else:
            assert header.entropy <= len(data) and all(s.end <= len(data) for s in header.segments)


def test_every_truncation_of_a_head_is_named() -> None:
    data = jpegs.encoded(jpegs.picture(24, 24))
    header = jpeg.read(data)
    for end in range(header.entropy):
        with pytest.raises(ValueError, match=r"not a JPEG|cut short"):
            jpeg.read(data[:end])


# -- layout ---------------------------------------------------------------------------------------------------------


USUAL = [(32, 4), (24, 4), (63, 7), (30, 5), (1, 1), (3, 1), (47, 1), (26, 2), (250, 10)]
"""MCUs a row, and a segment's, for 140 bytes of data an MCU of 16 x 16 pixels."""


@pytest.mark.parametrize(("columns", "expected"), USUAL)
def test_the_interval_divides_the_row(columns: int, expected: int) -> None:
    assert interval(columns, (16, 16), 140.0) == expected and columns % expected == 0


@given(st.integers(1, 4096), st.sampled_from([(8, 8), (16, 8), (8, 16), (16, 16), (32, 8)]), st.floats(0.5, 1e4))
def test_intervals_divide_rows_and_are_finer_the_more_an_mcu_holds(
    columns: int, mcu: tuple[int, int], held: float
) -> None:
    coarse, fine = interval(columns, mcu, held), interval(columns, mcu, 4 * held)
    assert columns % coarse == 0 and columns % fine == 0 and fine <= coarse


@jpegs.needs_jpegtran
def test_made_images_keep_every_pixel(tiler: Tiler) -> None:
    for name, data in jpegs.made().items():
        tiled = tiler.tile(data)
        table = read_table(tiled)
        assert table is not None and table.sizes.size == table.mcu_rows * table.per_row, name
        assert np.array_equal(jpegs.decoded(tiled), jpegs.decoded(data)), name
        codes = [0xD0 + i % 8 for i in range(table.sizes.size - 1)] + [0xD9]
        assert marked(tiled, table) == bytes(codes), name


@jpegs.needs_jpegtran
def test_coefficients_do_not_change(tiler: Tiler) -> None:
    names = [*(f"{s} 131x77" for s in (*jpegs.SAMPLINGS, "Gray")), "Gray 2x2", "RGB", "420 17x9", "444 1x1", "restart"]
    for name in names:
        data = jpegs.made()[name]
        before, after = coefficients(data), coefficients(tiler.tile(data))
        assert before == after and len(before) > 0, name
    assert len({*before.values()}) > 100


@jpegs.needs_jpegtran
def test_what_decoding_needs_is_last_and_contiguous(tiler: Tiler) -> None:
    tiled = tiler.tile(jpegs.made()["metadata"])
    table, header = read_table(tiled), jpeg.read(tiled)
    assert table is not None
    first = [s.marker for s in header.segments if s.start < table.head_offset]
    head = [s.marker for s in header.segments if s.start >= table.head_offset]
    assert set(first) == {0xE1, 0xE2, jpeg.COM, jpeg.APP9} and first[-1] == jpeg.APP9
    assert head[0] == jpeg.APP0 and set(head[1:]) == {jpeg.DQT, 0xC0, jpeg.DHT, jpeg.DRI}
    assert table.head_offset + table.head_length == header.entropy
    assert table.head_length < 1000 and table.head_offset > 15_000  # the colour profile is not in the head


@jpegs.needs_jpegtran
def test_metadata_are_kept(tiler: Tiler) -> None:
    data = jpegs.made()["metadata"]
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(tiler.tile(data)))
    assert dict(after.getexif()) == dict(before.getexif()) == {0x0112: 6, 0x010E: "a picture"}
    assert after.info["icc_profile"] == before.info["icc_profile"] and len(after.info["icc_profile"]) > 10_000
    assert after.info["comment"] == b"said of it"


@jpegs.needs_jpegtran
def test_adobe_stays_in_the_head(tiler: Tiler) -> None:
    tiled = tiler.tile(jpegs.made()["RGB"])
    table = read_table(tiled)
    assert table is not None and b"Adobe" in tiled[table.head_offset : table.head_offset + table.head_length]


@jpegs.needs_jpegtran
def test_tiling_twice_changes_nothing(tiler: Tiler) -> None:
    for name in ("420 240x160", "metadata", "progressive 422"):
        once = tiler.tile(jpegs.made()[name])
        assert tiler.tile(once) == once, name


@jpegs.needs_jpegtran
def test_what_is_tiled_keeps_its_segments(tiler: Tiler, monkeypatch: pytest.MonkeyPatch) -> None:
    for every in (1, 3, 15):
        monkeypatch.setattr(tiling, "interval", lambda *_, every=every: every)
        once = tiler.tile(jpegs.made()["420 240x160"])
        monkeypatch.undo()
        assert tiler.tile(once) == once, every


@jpegs.needs_jpegtran
def test_a_long_table_takes_several_segments(tiler: Tiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "interval", lambda *_: 4)  # of 508 blocks a row
    row = jpegs.picture(4064, 8)
    data = jpegs.encoded(np.tile(row, (260, 1, 1)), "Gray")
    tiled = tiler.tile(data)
    table = read_table(tiled)
    assert table is not None and table.sizes.size == 127 * 260 and tiled.count(b"\xff\xe9") >= 2
    parts = [s for s in jpeg.read(tiled).segments if s.marker == jpeg.APP9]
    assert [tiled[s.start + 12 : s.start + 14] for s in parts] == [b"\0\2", b"\1\2"]
    assert np.array_equal(jpegs.decoded(tiled), jpegs.decoded(data))
    first, second = (tiled[s.start : s.end] for s in parts)
    assert read_table(tiled.replace(first + second, second + first)) is None
    assert read_table(tiled.replace(first, b"")) is None
    assert read_table(tiled.replace(second, b"")) is None


@jpegs.needs_jpegtran
def test_real_images_keep_every_pixel(tiler: Tiler, shared_data: Path) -> None:
    refused: dict[str, int] = {}
    before = after = 0
    for name, data in jpegs.real(shared_data):
        try:
            tiled = tiler.tile(data)
        except NotTiled as error:
            refused[error.reason] = refused.get(error.reason, 0) + 1
            continue
        assert read_table(tiled) is not None, name
        assert np.array_equal(jpegs.decoded(tiled), jpegs.decoded(data)), name
        before, after = before + len(data), after + len(tiled)
    assert set(refused) <= {"CMYK"} and before > 0
    assert after < before * 1.01


# -- what is not tiled ----------------------------------------------------------------------------------------------


def refusal(tiler: Tiler, data: bytes) -> NotTiled:
    with pytest.raises(NotTiled) as caught:
        tiler.tile(data)
    return caught.value


@jpegs.needs_jpegtran
def test_what_is_not_tiled_says_why(tiler: Tiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = jpegs.encoded(jpegs.picture(64, 64), "444")
    at = jpegs.sof(plain)
    script = tmp_path / "scans"
    script.write_text("0,1,2: 0-0, 0, 0; 0: 1-63, 0, 1; 1: 1-63, 0, 0; 2: 1-63, 0, 0;")
    cases = {
        "CMYK": jpegs.saved(jpegs.picture(20, 20), "CMYK"),
        "12-bit": jpegs.patched(plain, at + 4, b"\x0c"),
        "SOF3": jpegs.patched(plain, at + 1, b"\xc3"),
        "DNL": jpegs.patched(plain, at + 5, b"\0\0"),
        "too large": jpegs.patched(plain, at + 5, b"\xff\xff\xff\xff"),
        "more than 10 blocks an MCU": plain[: at + 11] + b"\x22\0\2\x22\1\3\x22\1" + plain[at + 19 :],
        "not a JPEG": b"\x89PNG\r\n\x1a\n",
        "unfinished scans": jpegs.program("jpegtran", plain, "-scans", str(script)),
    }
    for reason, data in cases.items():
        error = refusal(tiler, data)
        assert (error.reason, error.damaged) == (reason, False)
    assert refusal(tiler, b"").reason == "not a JPEG"
    assert refusal(tiler, jpegs.patched(plain, at + 4, b"\x48")).reason == "damaged header"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8 * 401, 3), np.uint8)
    monkeypatch.setattr(tiling, "interval", lambda *_: 401)
    assert refusal(tiler, jpegs.encoded(noise, "444", 100)).reason == "segment too long"


@jpegs.needs_jpegtran
def test_damage_is_told_from_other_kinds(tiler: Tiler, shared_data: Path) -> None:
    for path in sorted((shared_data / "torchvision-assets" / "damaged_jpeg").glob("*.jpg")):
        assert refusal(tiler, path.read_bytes()).damaged, path.name
    cmyk = next((shared_data / "torchvision-assets").rglob("cmyk_pytorch.jpg"))
    assert refusal(tiler, cmyk.read_bytes()).reason == "CMYK"


@jpegs.needs_jpegtran
def test_truncations_and_flipped_bits_are_refused_or_tiled(tiler: Tiler) -> None:
    rng = random.Random(7)
    outcomes = set()
    for name in ("420 131x77", "progressive 444", "Gray 17x9", "metadata"):
        data = jpegs.made()[name]
        for turn in range(60):
            broken = bytearray(data if turn % 2 else data[: rng.randrange(1, len(data))])
            for _ in range(rng.randint(turn % 2, 4)):
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            try:
                tiled = tiler.tile(bytes(broken))
            except NotTiled as error:
                outcomes.add(error.damaged)
            else:
                assert read_table(tiled) is not None
                outcomes.add("tiled")
    assert outcomes == {True, False, "tiled"}


# -- lying tables ---------------------------------------------------------------------------------------------------


@jpegs.needs_jpegtran
def test_a_changed_table_is_refused(tiler: Tiler) -> None:
    tiled = tiler.tile(jpegs.made()["420 240x160"])
    true = read_table(tiled)
    assert true is not None
    start = tiled.index(MAGIC)
    for at in range(start - 4, true.head_offset):
        for change in (1, 0x80, 0xFF):
            lie = read_table(jpegs.patched(tiled, at, bytes([tiled[at] ^ change])))
            # Only the one reserved byte says nothing.
            assert lie is None or (at == start + len(MAGIC) + 5 and same(lie, true)), at


@jpegs.needs_jpegtran
def test_lengths_that_add_up_are_checked_against_the_markers(tiler: Tiler) -> None:
    tiled = tiler.tile(jpegs.made()["444 240x160"])
    true = read_table(tiled)
    assert true is not None
    lengths = true.sizes.ravel() - 2
    for i in range(len(lengths) - 1):
        changed = lengths.copy()
        changed[i : i + 2] = changed[i] - 1, changed[i + 1] + 1
        lie = true.head_offset - 2 * len(lengths)
        assert read_table(jpegs.patched(tiled, lie, changed.astype(">u2").tobytes())) is None


@jpegs.needs_jpegtran
def test_a_changed_head_never_gives_a_table_past_the_data(tiler: Tiler) -> None:
    tiled = tiler.tile(jpegs.made()["420 131x77"])
    entropy = jpeg.read(tiled).entropy
    for at in range(entropy):
        for change in (1, 0x10, 0xFF):
            table = read_table(jpegs.patched(tiled, at, bytes([tiled[at] ^ change])))
            if table is not None:
                assert table.bounds[0] == table.head_offset + table.head_length and table.bounds[-1] == len(tiled)
    for end in range(0, len(tiled), 7):
        assert read_table(tiled[:end]) is None
    assert read_table(tiled + b"\0") is None


@jpegs.needs_jpegtran
def test_an_image_without_rows_has_no_table(tiler: Tiler) -> None:
    tiled = tiler.tile(jpegs.made()["Gray 8x8"])
    table = read_table(tiled)
    assert table is not None
    tall = jpegs.patched(tiled, table.sof + 5, b"\0\0")[: table.head_offset + table.head_length]
    fixed = struct.pack(">BBBxHHHIII", 1, 8, 8, 1, 1, 0, table.head_offset - 2, table.head_length, 0)
    at = tiled.index(MAGIC)
    short = tall[: at - 2] + struct.pack(">H", 12 + len(fixed)) + tall[at : at + 10] + fixed + tall[table.head_offset :]
    assert jpeg.read(short).height == 0 and read_table(short) is None


def test_untiled_images_have_no_table() -> None:
    assert read_table(jpegs.encoded(jpegs.picture(64, 64))) is None
    assert read_table(b"") is None and read_table(b"\xff\xd8") is None


# -- the program ----------------------------------------------------------------------------------------------------


def tool(folder: Path, *lines: str) -> Tiler:
    """A tiler whose program is a shell script."""
    path = folder / "jpegtran"
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
    return Tiler(str(path), seconds=0.5)


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="libjpeg-turbo-progs") as caught:
        jpegtran.find_jpegtran()
    assert isinstance(caught.value, ActionNeeded) and caught.value.exit_code == 6
    assert (caught.value.tool, caught.value.package) == ("jpegtran", "libjpeg-turbo-progs")
    with pytest.raises(MissingTool):
        Tiler(str(tmp_path / "jpegtran")).tile(jpegs.encoded(jpegs.picture(64, 64)))


def test_a_hanging_program_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    start = time.monotonic()
    error = refusal(tool(tmp_path, f"echo $$ > {note}", "exec sleep 60"), jpegs.encoded(jpegs.picture(64, 64)))
    assert (error.reason, error.damaged) == ("deadline passed", False) and time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.parametrize(
    ("lines", "reason", "damaged"),
    [
        (("cat", "echo 'Corrupt JPEG data: bad Huffman code' >&2", "exit 2"), "damaged data", True),
        (("cat", "echo odd >&2"), "damaged data", True),
        (("echo 'Bogus marker length' >&2", "exit 1"), "refused by jpegtran", True),
        (("kill -SEGV $$",), "jpegtran died", False),
        (("cat",), "refused by jpegtran", False),
        (("head -c 100",), "refused by jpegtran", False),
        (("exit 0",), "refused by jpegtran", False),
    ],
)
def test_every_end_of_the_program_has_a_reason(
    tmp_path: Path, lines: tuple[str, ...], reason: str, damaged: bool
) -> None:
    error = refusal(tool(tmp_path, *lines), jpegs.encoded(jpegs.picture(64, 64)))
    assert (error.reason, error.damaged) == (reason, damaged)


def test_the_program_gets_three_descriptors_and_no_environment(tmp_path: Path) -> None:
    fd = fcntl.fcntl(2, fcntl.F_DUPFD, 50)  # one that stays open in programs
    try:
        error = refusal(tool(tmp_path, "ls /proc/$$/fd >&2", "env >&2", "exit 1"), jpegs.encoded(jpegs.picture(8, 8)))
    finally:
        os.close(fd)
    lines = error.detail.split("\n")
    opened = {int(line) for line in lines if line.isdigit()}
    variables = [line for line in lines if not line.isdigit()]
    assert {0, 1, 2} <= opened <= {0, 1, 2, 10, 11, 255}  # the last three are the shell's own
    assert {line.split("=")[0] for line in variables} <= {"LC_ALL", "PWD", "OLDPWD", "SHLVL", "_", "PATH"}


@jpegs.needs_jpegtran
def test_no_descriptor_is_left_open(tiler: Tiler) -> None:
    before = {fd.name for fd in Path("/proc/self/fd").iterdir()}
    for _ in range(3):
        tiler.tile(jpegs.made()["420 17x9"])
        refusal(tiler, jpegs.made()["420 131x77"][:-40])
    assert {fd.name for fd in Path("/proc/self/fd").iterdir()} <= before  # what others left may go meanwhile
