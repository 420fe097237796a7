"""Two Triton kernels over a ragged batch: weight tables, then everything else in one pass over the pixels.

`tables` makes, for each image and axis, what `datahub.tensor.fused.weights` says: first input, number of inputs and
16-bit weights of each shown pixel. `resample` then makes a tile of the batch, `TALL` rows by `WIDE` of a row's values,
in one warp: it scales the input rows the tile depends on, `ROWS` at a time, horizontally, rounds them to 8 bits as
torch does, and adds them up vertically in registers. So each input row is read once a tile, and the pixels between
the two passes never leave the chip. Taps lie next to each other, so that a warp reads one or two sectors a tap.

Laid out interleaved, a tile's values are neighbouring (column, channel) pairs, and planar, neighbouring columns of one
channel: either way a warp writes whole sectors. The table turns a pixel value into whatever number is wanted.

Estimate.
"""

from __future__ import annotations

import triton
import triton.language as tl

"""Numbers of an image in ``params``, int64, FIELDS of them and then four of float64: its address; bytes from channel to
channel, row to row, pixel to pixel; whether it is mirrored; of rows, then of columns, the corner, the scaled size, and
first and past-the-last input; the box's start and length, of rows, then of columns."""


@triton.jit
def tables(
    params, boxes, first, count, bits, weights,
    shown_rows, shown_columns, shown, taps, fours,
    FIELDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program (image, axis): ``first``, ``count`` ``(B, 2, shown)``, ``weights`` ``(B, 2, taps, shown)``, ``bits``."""
    image, axis = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = params + image * (FIELDS + 4) + 5 + axis * 4
    corner, scaled = tl.load(at), tl.load(at + 1)
    low, high = tl.load(at + 2), tl.load(at + 3)
    flip = (tl.load(params + image * (FIELDS + 4) + 4) != 0) & (axis == 1)
    start = tl.load(boxes + image * (FIELDS + 4) + FIELDS + axis * 2)
    length = tl.load(boxes + image * (FIELDS + 4) + FIELDS + axis * 2 + 1)
    scale = length / scaled.to(tl.float64)
    support = tl.maximum(scale, 1.0)
    inverse = 1.0 / support

    # The greatest weight of the whole axis, also outside of the window, decides how many bits weights have.
    greatest = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, scaled.to(tl.int32), BLOCK):
        place = begin + tl.arange(0, BLOCK)
        centre = start + scale * (place.to(tl.float64) + 0.5)
        lowest = tl.maximum((centre - support + 0.5).to(tl.int64), low)
        size = tl.minimum((centre + support + 0.5).to(tl.int64), high) - lowest
        total, peak = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for tap in range(0, taps):
            distance = tl.abs((lowest + tap).to(tl.float64) - centre + 0.5) * inverse
            weight = tl.where(tap < size, tl.maximum(1.0 - distance, 0.0), 0.0)
            total += weight
            peak = tl.maximum(peak, weight)
        greatest = tl.maximum(greatest, tl.where(place < scaled, peak, 0.0) / tl.where(place < scaled, total, 1.0))
    peak_weight = tl.max(greatest, axis=0)
    precision = 0
    power = 2.0
    for _ in range(0, 22):
        precision += ((0.5 + peak_weight * power).to(tl.int64) < 32768).to(tl.int32)
        power *= 2.0
    tl.store(bits + image * 2 + axis, precision)
    one = (tl.full([1], 1, tl.int64) << precision).to(tl.float64)

    extent = tl.where(axis == 0, shown_rows, shown_columns)
    out = (image * 2 + axis) * shown
    for begin in range(0, extent, BLOCK):
        place = begin + tl.arange(0, BLOCK)
        there = place < extent
        source = corner + tl.where(flip, extent - 1 - place, place)
        inside = (source >= 0) & (source < scaled)
        centre = start + scale * (source.to(tl.float64) + 0.5)
        lowest = tl.maximum((centre - support + 0.5).to(tl.int64), low)
        size = tl.where(inside, tl.minimum((centre + support + 0.5).to(tl.int64), high) - lowest, 0)
        total = tl.zeros([BLOCK], tl.float64)
        for tap in range(0, taps):
            distance = tl.abs((lowest + tap).to(tl.float64) - centre + 0.5) * inverse
            total += tl.where(tap < size, tl.maximum(1.0 - distance, 0.0), 0.0)
        total = tl.where(inside, total, 1.0)
        tl.store(first + out + place, tl.where(inside, lowest, 0).to(tl.int32), mask=there)
        tl.store(count + out + place, size.to(tl.int32), mask=there)
        # Rows are taken four at a time from a multiple of four on: their weights begin there, too.
        skipped = tl.where(axis == 0, (lowest & 3).to(tl.int32), 0)
        into = weights + (image * 2 + axis) * fours * 2 * shown + place
        for group in range(0, fours):
            high, low = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
            for step in tl.static_range(4):
                tap = group * 4 + step - skipped
                distance = tl.abs((lowest + tap).to(tl.float64) - centre + 0.5) * inverse
                weight = tl.where((tap >= 0) & (tap < size), tl.maximum(1.0 - distance, 0.0), 0.0) / total
                whole = (weight * one + 0.5).to(tl.int32)
                high += (whole >> 8) << (8 * step)
                low += (whole & 255) << (8 * step)
            tl.store(into + 2 * group * shown, high, mask=there)
            tl.store(into + (2 * group + 1) * shown, low, mask=there)


@triton.jit
def products(pixels, weights, total, DOT: tl.constexpr):
    """``total`` and the sum of the products of four pairs of bytes."""
    if DOT:
        return tl.inline_asm_elementwise(
            "dp4a.u32.u32 $0, $1, $2, $3;", "=r,r,r,r", [pixels, weights, total], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        for step in tl.static_range(4):
            total += ((pixels >> (8 * step)) & 255) * ((weights >> (8 * step)) & 255)
        return total


@triton.jit
def resample(
    params, first, count, bits, weights, table, out,
    shown_rows, shown_columns, shown, fours,
    FIELDS: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, LOOKED_UP: tl.constexpr,
    PIXEL: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Program (tile, image): ``out`` ``(B, CHANNELS, shown_rows, shown_columns)`` in the layout that is asked for.

    ``PIXEL``: bytes from pixel to pixel in every image, or 0 where they differ and ``params`` say. ``DOT``: sums of
    four products are one instruction.
    """
    tile, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    if INTERLEAVED:
        line = shown_columns * CHANNELS
        across = tl.cdiv(line, WIDE)
        to = (tile % across) * WIDE + tl.arange(0, WIDE)
        column, channel = to // CHANNELS, to % CHANNELS
        there = to < line
        down = line
        begin = out + image * shown_rows * line
    else:
        strips = tl.cdiv(shown_columns, WIDE)
        across = strips * CHANNELS
        plane = (tile % across) // strips
        to = (tile % strips) * WIDE + tl.arange(0, WIDE)
        column, channel = to, tl.zeros([WIDE], tl.int32) + plane
        there = to < shown_columns
        down = shown_columns
        begin = out + (image * CHANNELS + plane) * shown_rows * shown_columns
    line_of = (tile // across) * TALL + tl.arange(0, TALL)
    shows = line_of < shown_rows

    at = params + image * (FIELDS + 4)
    row_bytes = tl.load(at + 2)
    if PIXEL == 0:
        pixel_bytes = tl.load(at + 3)
    else:
        pixel_bytes = PIXEL
    rows, columns = image * 2 * shown, (image * 2 + 1) * shown
    first_row = tl.load(first + rows + line_of, mask=shows, other=0)
    row_count = tl.load(count + rows + line_of, mask=shows, other=0)
    first_column = tl.load(first + columns + column, mask=there, other=0)
    column_count = tl.load(count + columns + column, mask=there, other=0)
    row_bits, column_bits = tl.load(bits + image * 2), tl.load(bits + image * 2 + 1)
    row_weights = weights + rows * fours * 2 + line_of
    column_weights = weights + columns * fours * 2 + column

    used = row_count > 0
    top = tl.min(tl.where(used, first_row, 2147483647), axis=0) & -4
    bottom = tl.max(tl.where(used, first_row + row_count, 0), axis=0)
    most = tl.max(column_count, axis=0)
    # Words are counted from the image's first, which holds its first byte; the last holds the last that is read.
    address = tl.load(at)
    skipped = (address & 3).to(tl.int32)
    words = (address - skipped).to(tl.pointer_type(tl.uint32))
    bytes_in = words.to(tl.pointer_type(tl.uint8))
    from_column = channel.to(tl.int64) * tl.load(at + 1) + first_column.to(tl.int64) * pixel_bytes + skipped
    reach = from_column + (column_count - 1).to(tl.int64) * pixel_bytes + (bottom - 1).to(tl.int64) * row_bytes
    last = tl.max(tl.where(column_count > 0, reach, 0), axis=0)
    last_word = (last >> 2).to(tl.int32)

    total_high, total_low = tl.zeros([TALL, WIDE], tl.int32), tl.zeros([TALL, WIDE], tl.int32)
    for begin_row in range(top, bottom, 4):
        # A row past the last has no weight; another is read in its place, not what is past the image's end.
        row = tl.minimum(begin_row + tl.arange(0, 4), bottom - 1).to(tl.int64)
        offset = row[:, None] * row_bytes + from_column[None, :]
        high, low = tl.zeros([4, WIDE], tl.int32), tl.zeros([4, WIDE], tl.int32)
        for group in range(0, (most + 3) // 4):
            if PIXEL == 1:
                # Four pixels lie in two words. What of those is not wanted has no weight.
                byte = (offset + group * 4).to(tl.int32)
                word = byte >> 2
                below = tl.load(words + tl.minimum(word, last_word)).to(tl.uint64)
                above = tl.load(words + tl.minimum(word + 1, last_word)).to(tl.uint64)
                pixels = ((above << 32 | below) >> ((byte & 3) * 8).to(tl.uint64)).to(tl.uint32)
                pixels = pixels.to(tl.int32, bitcast=True)
            else:
                pixels = tl.zeros([4, WIDE], tl.int32)
                for step in tl.static_range(4):
                    byte = tl.minimum(offset + (group * 4 + step) * pixel_bytes, last)
                    pixels |= tl.load(bytes_in + byte).to(tl.int32) << (8 * step)
            weight = column_weights + group * 2 * shown
            high = products(pixels, tl.load(weight, mask=there, other=0)[None, :] + high * 0, high, DOT)
            low = products(pixels, tl.load(weight + shown, mask=there, other=0)[None, :] + low * 0, low, DOT)
        sums = tl.minimum((high * 256 + low + (1 << (column_bits - 1))) >> column_bits, 255)
        # Four rows below each other are the bytes of one number, as are their weights in each line of output.
        stacked = tl.sum(sums << (8 * tl.arange(0, 4))[:, None], axis=0)
        group = (begin_row - (first_row & -4)) // 4
        reads = shows & (begin_row >= (first_row & -4)) & (begin_row < first_row + row_count)
        weight = row_weights + group * 2 * shown
        stacked = stacked[None, :] + total_high * 0
        weight_high = tl.load(weight, mask=reads, other=0)[:, None] + total_high * 0
        weight_low = tl.load(weight + shown, mask=reads, other=0)[:, None] + total_high * 0
        total_high = products(stacked, weight_high, total_high, DOT)
        total_low = products(stacked, weight_low, total_low, DOT)

    whole = tl.minimum((total_high * 256 + total_low + (1 << (row_bits - 1))) >> row_bits, 255)
    if LOOKED_UP:
        made = tl.load(table + channel[None, :] * 256 + whole)
    else:
        made = whole.to(tl.uint8)
    tl.store(begin + line_of[:, None] * down + to[None, :], made, mask=shows[:, None] & there[None, :])


@triton.jit
def moved(
    pixels, given, fill, table, out,
    height, width, tall, wide,
    CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, LOOKED_UP: tl.constexpr, MODE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Program (block, output): values of uint8 ``(N, C, height, width)``; see `datahub.tensor.fused.moving`."""
    block, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
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
