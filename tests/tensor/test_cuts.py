"""Any box of any image, cut out of its bitstream or decoded no further than it: the pixels are the whole image's."""

from __future__ import annotations

from functools import cache
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.pack import jpeg, tiling
from datahub.pack.tiletable import Tiling, read_table
from datahub.tensor.bitstream import crop
from datahub.tensor.decode import header
from datahub.tensor.partial import jpeg_box
from datahub.tensor.resample import framed_pixels
from tests.pack import jpegs

Box = tuple[int, int, int, int]
pytestmark = jpegs.needs_jpegtran
SPACES = (*jpegs.SAMPLINGS, "Gray")


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> Box:
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))


@cache
def images(sampling: str, width: int, height: int, choice: int) -> tuple[bytes, bytes]:
    """An image, and the same with a restart marker every so many MCUs: the ``choice``-th divisor of a row."""

    def interval(columns: int, mcu: tuple[int, int], mcu_bytes: float) -> int:
        divisors = [n for n in range(1, columns + 1) if columns % n == 0]
        return divisors[choice % len(divisors)]

    original = jpegs.encoded(jpegs.picture(width, height), sampling)
    with patch.object(tiling, "interval", interval):
        return original, tiling.Tiler().tile(original)


@settings(max_examples=120, deadline=None)
@given(data=st.data(), sampling=st.sampled_from(SPACES), width=st.integers(1, 84), height=st.integers(1, 52))
def test_pixels_of_any_box_are_the_whole_images(data: st.DataObject, sampling: str, width: int, height: int) -> None:
    original, tiled = images(sampling, width, height, data.draw(st.integers(0, 3)))
    table, whole = read_table(tiled), jpegs.decoded(original)
    assert table is not None
    for _ in range(4):
        x, y, w, h = box = data.draw(boxes(width, height))
        cut = crop(tiled, table, *box)
        part = jpegs.decoded(cut.data)
        assert part.shape[:2] == (cut.height, cut.width)
        assert np.array_equal(part[cut.y : cut.y + h, cut.x : cut.x + w], whole[y : y + h, x : x + w])
        for each in (original, tiled):
            found = jpeg_box(each, header(each), box, whole.shape[2])
            assert found is not None and np.array_equal(found, whole[y : y + h, x : x + w])


def test_the_narrowest_cuts() -> None:
    """Below five columns libjpeg repeats chroma samples; the last, short segment of a row must not stand alone."""
    for sampling in ("422", "420"):
        for width in range(33, 41):
            original, tiled = images(sampling, width, 20, 0)
            table, whole = read_table(tiled), jpegs.decoded(original)
            assert table is not None and table.interval == 1
            for x in range(28, width):
                cut = crop(tiled, table, x, 3, 1, 9)
                part = jpegs.decoded(cut.data)[cut.y : cut.y + 9, cut.x : cut.x + 1]
                assert np.array_equal(part, whole[3:12, x : x + 1]), (sampling, width, x)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), value=st.binary(min_size=1, max_size=6))
def test_heads_and_tables_that_are_damaged(data: st.DataObject, value: bytes) -> None:
    """They are no table, or one that fits the bytes: cutting then gives a JPEG of the size it says."""
    tiled = images("420", 80, 48, 1)[1]
    end = jpeg.read(tiled).entropy
    broken = jpegs.patched(tiled, data.draw(st.integers(0, end - len(value))), value)
    table = read_table(broken)
    if table is None:
        return
    assert fits(broken, table)
    cut = crop(broken, table, *data.draw(boxes(table.width, table.height)))
    found = jpeg.read(cut.data)
    assert (found.width, found.height, found.restart) == (cut.width, cut.height, table.interval)


def fits(data: bytes, table: Tiling) -> bool:
    ends = table.bounds[1:]
    marked = all(data[end - 2] == 0xFF and data[end - 1] in (*range(0xD0, 0xD8), jpeg.EOI) for end in ends)
    return marked and ends[-1] == len(data) and np.array_equal(np.diff(table.bounds), table.sizes.reshape(-1))


def test_one_image_after_another_in_the_same_memory() -> None:
    """A thread's scratch is used again: no image shows what the one before it left there."""
    rng = np.random.default_rng(3)
    shapes = [(61, 90), (20, 30), (61, 90), (1, 1), (224, 100), (33, 47)]
    regions = [rng.integers(0, 256, (*shape, channels), np.uint8) for shape in shapes for channels in (3, 1)]
    window = (0, 0, 24, 32)
    alone = []
    for flip in (False, True):
        for region in regions:
            out = np.empty((region.shape[2], 24, 32), np.uint8)
            framed_pixels(region, (24, 32), window, flip, out)
            alone.append(out.copy())
    for again in range(2):
        for number in reversed(range(len(alone))):
            flip, region = divmod(number, len(regions))
            wide = np.zeros(
                (regions[region].shape[0], regions[region].shape[1] + 7, regions[region].shape[2]), np.uint8
            )
            wide[:, again : again + regions[region].shape[1]] = regions[region]
            out = np.empty_like(alone[number])
            view = wide[:, again : again + regions[region].shape[1]]
            framed_pixels(view, (24, 32), window, bool(flip), out)
            assert np.array_equal(out, alone[number])
