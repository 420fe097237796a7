"""The kernel of moves: a batch gathered from one of images of one size. See `datahub.tensor.fused.moving`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def moved(
    pixels, given, fill, table, out,
    height, width, tall, wide, blocks,
    CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, LOOKED_UP: tl.constexpr, MODE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A program for each of an output's ``blocks`` of values."""
    block, image = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    value = block * BLOCK + tl.arange(0, BLOCK)
    if INTERLEAVED:
        channel, place = value % CHANNELS, value // CHANNELS
    else:
        channel, place = value // (tall * wide), value % (tall * wide)
    there = value < CHANNELS * tall * wide
    y, x = place // wide, place % wide
    row, flags = tl.load(given + image * 4), tl.load(given + image * 4 + 3)
    y = tl.load(given + image * 4 + 1).to(tl.int32) + tl.where(flags >= 2, tall - 1 - y, y)
    x = tl.load(given + image * 4 + 2).to(tl.int32) + tl.where(flags % 2 == 1, wide - 1 - x, x)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if MODE == 2:
        y = tl.where(y < 0, -y, tl.where(y >= height, 2 * height - 2 - y, y))
        x = tl.where(x < 0, -x, tl.where(x >= width, 2 * width - 2 - x, x))
    if MODE == 3:
        y = tl.where(y < 0, -1 - y, tl.where(y >= height, 2 * height - 1 - y, y))
        x = tl.where(x < 0, -1 - x, tl.where(x >= width, 2 * width - 1 - x, x))
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    source = pixels + row * CHANNELS * height * width + (channel * height + y) * width + x
    if MODE == 0:
        blank = tl.load(fill + channel, mask=there, other=0).to(tl.uint8)
        found = tl.where(inside, tl.load(source, mask=there & inside, other=0), blank)
    else:
        found = tl.load(source, mask=there, other=0)
    if LOOKED_UP:
        made = tl.load(table + channel * 256 + found.to(tl.int32), mask=there)
    else:
        made = found
    tl.store(out + image * CHANNELS * tall * wide + value, made, mask=there)
