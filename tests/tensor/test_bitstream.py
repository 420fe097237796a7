from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from datahub.pack import jpeg
from datahub.pack import tiling as tiling_module
from datahub.pack.tiling import NotTiled, Tiler, Tiling, read_table
from datahub.tensor.bitstream import Cut, crop
from tests.pack import jpegs

Box = tuple[int, int, int, int]
pytestmark = jpegs.needs_jpegtran


@pytest.fixture(scope="module")
def tiler() -> Tiler:
    return Tiler()


def tiled(tiler: Tiler, data: bytes) -> tuple[bytes, Tiling]:
    data = tiler.tile(data)
    tiling = read_table(data)
    assert tiling is not None
    return data, tiling


def anywhere(rng: random.Random, width: int, height: int) -> Box:
    w, h = rng.randint(1, width), rng.randint(1, height)
    return rng.randint(0, width - w), rng.randint(0, height - h), w, h


def corners(width: int, height: int) -> list[Box]:
    """The whole image, every corner's pixel, the last rows and columns."""
    right, bottom = width - 1, height - 1
    pixels = [(x, y, 1, 1) for x in {0, right} for y in {0, bottom}]
    return [(0, 0, width, height), *pixels, (max(right - 2, 0), 0, min(3, width), 1), (0, bottom, width, 1)]


def inside(cut: Cut, whole: NDArray[np.uint8], box: Box) -> bool:
    """Whether the decoded cut holds exactly the crop of the whole image."""
    x, y, w, h = box
    part = jpegs.decoded(cut.data)[cut.y : cut.y + h, cut.x : cut.x + w]
    return np.array_equal(part, whole[y : y + h, x : x + w])


def test_crops_of_made_images_differ_in_no_pixel(tiler: Tiler) -> None:
    rng = random.Random(5)
    for name, original in jpegs.made().items():
        data, tiling = tiled(tiler, original)
        whole = jpegs.decoded(original)
        boxes = [anywhere(rng, tiling.width, tiling.height) for _ in range(40)]
        for box in [*boxes, *corners(tiling.width, tiling.height)]:
            assert inside(crop(data, tiling, *box), whole, box), (name, box)


def test_crops_of_real_images_differ_in_no_pixel(tiler: Tiler, shared_data: Path) -> None:
    rng = random.Random(6)
    kept = []
    for name, original in jpegs.real(shared_data):
        try:
            data, tiling = tiled(tiler, original)
        except NotTiled:
            continue
        whole = jpegs.decoded(original)
        for _ in range(3):
            box = anywhere(rng, tiling.width, tiling.height)
            cut = crop(data, tiling, *box)
            assert inside(cut, whole, box), (name, box)
            kept.append(len(cut.data) / len(data))
    assert 0.1 < np.mean(kept) < 0.8


def test_another_decoder_agrees(tiler: Tiler) -> None:
    rng = random.Random(8)
    for sampling in ("444", "422", "420", "440"):
        data, tiling = tiled(tiler, jpegs.made()[f"{sampling} 240x160"])
        whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for _ in range(20):
            x, y, w, h = anywhere(rng, 240, 160)
            cut = crop(data, tiling, x, y, w, h)
            part = cv2.imdecode(np.frombuffer(cut.data, np.uint8), cv2.IMREAD_COLOR)
            assert np.array_equal(part[cut.y : cut.y + h, cut.x : cut.x + w], whole[y : y + h, x : x + w])


def segments_of_80_pixels(columns: int, mcu: tuple[int, int], mcu_bytes: float) -> int:
    return 80 // mcu[0]


def test_a_cut_is_a_tidy_jpeg(tiler: Tiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling_module, "interval", segments_of_80_pixels)
    data, tiling = tiled(tiler, jpegs.made()["420 240x160"])
    assert (tiling.interval, tiling.mcus_per_row) == (5, 15)
    cut = crop(memoryview(data), tiling, 100, 70, 40, 30)
    header = jpeg.read(cut.data)
    # Segments are 80 pixels wide; what the crop depends on lies in columns 80..160 and rows 64..112.
    assert (header.width, header.height, cut.x, cut.y) == (80, 48, 20, 6)
    assert header.restart == 5 and header.frame == 0
    entropy = cut.data[header.entropy :]
    codes = [b for a, b in pairwise(entropy) if a == 0xFF and b]
    assert codes == [0xD0, 0xD1, 0xD9] and entropy[-2:] == b"\xff\xd9"


def test_chroma_at_full_size_needs_no_margin(tiler: Tiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling_module, "interval", segments_of_80_pixels)
    for sampling, size in {"444": (80, 8), "422": (240, 8), "440": (80, 32), "420": (240, 32)}.items():
        data, tiling = tiled(tiler, jpegs.made()[f"{sampling} 240x160"])
        step = tiling.interval * tiling.mcu_width, tiling.mcu_height
        header = jpeg.read(crop(data, tiling, 80, 64, 80, 8).data)
        wide = 240 if tiling.subsampled[0] else -(-160 // step[0]) * step[0] - 80 // step[0] * step[0]
        assert header.height == size[1] and header.width == wide, sampling


def test_a_row_in_one_piece_is_cropped_in_height_only(tiler: Tiler) -> None:
    data, tiling = tiled(tiler, jpegs.made()["444 376x40"])
    assert tiling.interval == tiling.mcus_per_row == 47
    cut = crop(data, tiling, 100, 17, 10, 6)
    header = jpeg.read(cut.data)
    assert (header.width, header.height, cut.x, cut.y) == (376, 8, 100, 1)


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 5), (0, 0, 5, 0), (-1, 0, 5, 5), (0, -1, 5, 5), (236, 0, 5, 5), (0, 156, 5, 5), (0, 0, -3, 5)],
)
def test_boxes_that_are_none_are_refused(tiler: Tiler, box: Box) -> None:
    data, tiling = tiled(tiler, jpegs.made()["420 240x160"])
    with pytest.raises(ValueError, match="no box in 240 x 160"):
        crop(data, tiling, *box)


def test_flipped_bits_that_still_tile_still_crop(tiler: Tiler) -> None:
    rng = random.Random(9)
    original = jpegs.made()["420 131x77"]
    cropped = 0
    for _ in range(150):
        broken = bytearray(original)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        try:
            data, tiling = tiled(tiler, bytes(broken))
            whole = jpegs.decoded(bytes(broken))
        except (NotTiled, ValueError, OSError):
            continue
        box = anywhere(rng, tiling.width, tiling.height)
        assert inside(crop(data, tiling, *box), whole, box)
        cropped += 1
    assert cropped > 10
