"""What is refused before a decoder sees it, alike by packer, verifier and loader: checksums, bits a sample, pixels."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_
from hypothesis import strategies as st
from PIL import Image

import datahub
from datahub.core import images as core
from datahub.core.errors import BadArgument, DamagedImage, DamagedSample, LayoutError
from datahub.core.images import PIXEL_CAP, checked, jpeg_bits
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.getting import pack
from datahub.loader.opening import vision
from datahub.loader.preview import View, preview
from datahub.loader.streaming import StreamingLoader
from datahub.pack import authoring, objects
from datahub.pack import images as packing
from datahub.store import samples as verifying
from datahub.store import typed
from datahub.tensor.decode import decode, decode_rows, header
from tests.tensor.images import chunk, encoded, jpeg12, jpeg_of_levels, noise, png_filtered

RGB, GRAY = noise(20, 30, 3), noise(20, 30, 1)
PNGS = {
    "rgb": encoded(RGB),
    "gray": encoded(GRAY),
    "simple filters": png_filtered(RGB, [0, 1, 2]),
    "simple gray": png_filtered(GRAY, [0]),
    "palette": encoded(Image.fromarray(RGB).convert("P")),
    "16 bits": encoded(Image.fromarray(GRAY.astype(np.uint16) * 257)),
    "alpha": encoded(np.dstack([RGB, GRAY])),
}
PNGS |= {f"{name}, with a text": data[:33] + chunk(b"tEXt", b"a\0b") + data[33:] for name, data in PNGS.items()}


def chunks(data: bytes) -> dict[str, int]:
    """Kind -> where the checksum of its last chunk is."""
    found, at = {}, 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found[data[at + 4 : at + 8].decode()] = at + 8 + length
        at += 12 + length
    return found


def verdicts(data: bytes) -> dict[str, str]:
    """Who reads an image of 30 x 20, "" where it does, else what it says."""
    rows = {f"rows of {n}": np.empty((1, n, 20, 30), np.uint8) for n in (1, 3)}
    row = {"width": 30, "height": 20, "format": "png"}
    ways = {
        "colour": lambda: decode(data, 3),
        "gray": lambda: decode(data, 1),
        **{name: lambda out=out: decode_rows([data], out) for name, out in rows.items()},
        "packer": lambda: packing.pixels(data),
        "raw": lambda: packing.plain(data),
        "verifier": lambda: verifying._decode(data, row),
    }
    found = {}
    for name, read in ways.items():
        try:
            read()
            found[name] = ""
        except (DamagedImage, ValueError, verifying._Damage) as error:
            found[name] = str(error)
    return found


@pytest.mark.parametrize("name", PNGS)
def test_a_wrong_checksum_is_one_verdict(name):
    assert set(verdicts(PNGS[name]).values()) == {""}
    for kind, at in chunks(PNGS[name]).items():
        wrong = bytearray(PNGS[name])
        wrong[at] ^= 1
        found = verdicts(bytes(wrong))
        if kind in ("tEXt", "IEND"):
            assert set(found.values()) == {""}, (kind, found)
        else:
            assert all(found.values()), (kind, found)
        if kind == "IDAT":
            assert all("IDAT chunk does not have the checksum" in each for each in found.values()), found


@given(st.sampled_from(sorted(PNGS)), st.integers(33, 1 << 20), st.integers(1, 255))
@settings_(max_examples=300, deadline=None)
def test_damage_is_one_verdict(name, at, change):
    """Of whatever is behind the header: lengths, kinds, data and checksums."""
    data = bytearray(PNGS[name])
    at = 33 + at % (len(data) - 33)
    data[at] ^= change
    found = verdicts(bytes(data))
    assert len({bool(each) for each in found.values()}) == 1, found


@given(st.sampled_from(sorted(PNGS)), st.integers(1, 1 << 20))
@settings_(max_examples=200, deadline=None)
def test_what_is_cut_short_is_one_verdict(name, kept):
    """All that is behind the pixels may be missing, and nothing of them."""
    data, pixels = PNGS[name], chunks(PNGS[name])["IDAT"] + 4
    kept = 33 + kept % (len(data) - 33)
    found = verdicts(data[:kept])
    assert {bool(each) for each in found.values()} == {kept < pixels}, found


def test_no_decoder_sees_a_chunk_longer_than_its_file(monkeypatch):
    """OpenCV would take as much memory."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for data in (PNGS["rgb"], PNGS["rgb, with a text"]):
        with pytest.raises(DamagedImage, match="the PNG is cut short"):
            decode(data[:33] + b"\xff\xff\xff\xff" + data[37:])


@pytest.mark.parametrize(("kind", "fine"), [(b"teXt", True), (b"ABCD", False), (b"\0\1\2\3", False), (b"a\0bc", False)])
def test_a_chunk_of_an_unknown_kind_is_one_verdict(kind, fine):
    for name in ("rgb", "gray", "palette", "16 bits", "alpha"):
        data, end = PNGS[name], len(PNGS[name]) - 12
        found = verdicts(data[:33] + chunk(kind, b"a") + data[33:])
        assert {bool(each) for each in found.values()} == {not fine}, (name, found)
        behind = verdicts(data[:end] + chunk(kind, b"a") + data[end:])
        assert set(behind.values()) == {""}, (name, behind)


def test_a_palette_that_is_advice_may_be_damaged():
    wrong = bytearray(chunk(b"PLTE", bytes(6)))
    wrong[-1] ^= 1
    assert set(verdicts(PNGS["rgb"][:33] + bytes(wrong) + PNGS["rgb"][33:]).values()) == {""}


def test_a_mask_has_its_checksums_looked_at():
    data = encoded(GRAY)
    spec = typed.spec("mask", "mask")
    assert np.array_equal(typed.member(spec, data, (20, 30)), GRAY)
    wrong = bytearray(data)
    wrong[chunks(data)["IDAT"]] ^= 1
    with pytest.raises(ValueError, match="IDAT chunk does not have the checksum"):
        typed.member(spec, bytes(wrong), (20, 30))


def test_what_is_sound_is_handed_on_as_it_is():
    for data in (*PNGS.values(), encoded(RGB, "JPEG"), encoded(RGB, "GIF"), b"", b"\xff\xd8"):
        assert checked(data) is data


def test_a_mask_that_is_written_anew_has_its_checksums_looked_at():
    rows = zlib.compress(b"\0\x12" * 3)  # of four bits a pixel, 2 x 3
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 3, 4, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert np.array_equal(typed.member(typed.spec("mask", "mask"), objects.mask(data), (3, 2)), [[1, 2]] * 3)
    wrong = bytearray(data)
    wrong[chunks(data)["IDAT"]] ^= 1
    with pytest.raises(ValueError, match="IDAT chunk does not have the checksum"):
        objects.mask(bytes(wrong))


# -- bits a sample ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("components", [1, 3])
def test_the_jpeg_that_is_written_by_hand_is_one(components):
    """Of 8 bits, decoders read the levels that were written."""
    levels = np.random.default_rng(0).integers(0, 256, (4, 6, components))
    with Image.open(io.BytesIO(jpeg_of_levels(levels, bits=8))) as image:
        image.draft("YCbCr" if components == 3 else "L", None)
        found = np.asarray(image).reshape(32, 48, components)
    assert np.array_equal(found[::8, ::8], levels) and np.array_equal(found[7::8, 7::8], levels)
    assert jpeg_bits(jpeg12()) == 12 and jpeg_bits(encoded(RGB, "JPEG")) == 8


TWELVE = "JPEG of 12 bits a sample, and only 8 are decoded"


@pytest.fixture
def folder(tmp_path):
    for row in range(4):
        path = tmp_path / "images" / "one" / f"{row}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg12() if row == 2 else encoded(noise(40, 56, seed=row), "JPEG"))
    return tmp_path / "images"


def test_12_bits_are_refused_by_name_when_they_are_packed(folder, settings: Settings):
    with pytest.raises(LayoutError, match=TWELVE):
        pack(f"imagefolder:{folder}", "twelve@1", damaged="refuse", settings=settings, jobs=1)
    with authoring.Writer("own@1", {"image": "image"}, settings=settings, jobs=1) as writer:
        with pytest.raises(BadArgument, match=TWELVE):
            writer.write(split="train", source="x", image=jpeg12())
        writer.write(split="train", source="y", image=encoded(RGB, "JPEG"))
    for variant in ("tiled", "max256", "raw"):
        made = pack(f"imagefolder:{folder}", f"left@1/{variant}", damaged="quarantine", settings=settings, jobs=1)
        assert len(made[next(iter(made.splits))]) == 3


def test_12_bits_that_were_kept_are_named_where_they_are_read(folder, settings: Settings, tmp_path):
    dataset = pack(f"imagefolder:{folder}", "twelve@1", settings=settings, jobs=1)
    name = next(iter(dataset.splits))
    split = dataset[name]
    sources = [split[row]["source"] for row in range(4)]
    bad = next(row for row, source in enumerate(sources) if "2.jpg" in source)
    with pytest.raises(DamagedSample, match=TWELVE):
        split[bad]["image"]
    with pytest.raises(DamagedSample, match=TWELVE):
        vision("twelve@1", name, settings=settings)[bad]
    options: dict[str, Any] = {"batch_size": 4, "num_workers": 0, "settings": settings}
    for transform in (None, datahub.transforms.RandomResizedCrop(16)):
        made = StreamingLoader("twelve@1", name, transform=transform, **options)
        with made, pytest.raises(DamagedSample, match=TWELVE):
            next(iter(made))
        with StreamingLoader("twelve@1", name, transform=transform, on_error="quarantine", **options) as made:
            assert next(iter(made))["valid"].tolist() == [row != bad for row in range(4)]
    found = preview(Ref.parse("twelve@1"), settings, View(shuffle=False), tmp_path / "sheet.png")
    assert [sample["valid"] for sample in found.samples] == [row != bad for row in range(4)]
    with pytest.raises(verifying._Damage, match=TWELVE):
        verifying._decode(jpeg12(), {"width": 56, "height": 40, "format": "jpeg"})


# -- pixels -----------------------------------------------------------------------------------------------------------


def claims(kind: str, width: int, height: int) -> bytes:
    """A file whose header says so many pixels; there are none."""
    if kind == "png":
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", b"")
        )
    if kind == "ppm":
        return b"P6\n%d %d\n255\n" % (width, height) + bytes(64)
    if kind == "jpeg":
        small = jpeg_of_levels(np.zeros((1, 1, 3), int), bits=8)
        at = small.index(b"\xff\xc1") + 5
        return small[:at] + struct.pack(">HH", height, width) + small[at + 4 :]
    small = bytearray(encoded(RGB, kind.upper()))
    if kind == "gif":
        small[6:10] = struct.pack("<HH", width, height)
    else:
        small[18:26] = struct.pack("<ii", width, height)
    return bytes(small)


@given(st.sampled_from(["png", "ppm", "jpeg", "gif", "bmp"]), st.integers(2731, 65500), st.integers(-3, 3))
@settings_(max_examples=150, deadline=None)
def test_nothing_is_packed_that_is_too_large_to_be_loaded(kind, width, beside):
    """Around the cap, which is one for all."""
    height = min(65500, PIXEL_CAP // width + beside)
    data = claims(kind, width, height)
    try:
        assert packing.look(data)[1:] == (width, height)
        packed = True
    except ValueError as error:
        assert f"more than {PIXEL_CAP}" in str(error)
        packed = False
    try:
        assert header(data)[1:3] == (width, height)
        loaded = True
    except DamagedImage as error:
        assert f"above the cap of {PIXEL_CAP}" in str(error)
        loaded = False
    assert packed == loaded == (width * height <= PIXEL_CAP)


def test_the_cap_is_one_everywhere():
    for module in (packing, verifying, typed):
        assert module.PIXEL_CAP is core.PIXEL_CAP
