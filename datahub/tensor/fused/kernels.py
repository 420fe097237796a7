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
    shown_rows, shown_columns, shown, taps,
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
        for tap in range(0, taps):
            distance = tl.abs((lowest + tap).to(tl.float64) - centre + 0.5) * inverse
            weight = tl.where(tap < size, tl.maximum(1.0 - distance, 0.0), 0.0) / total
            whole = (weight * one + 0.5).to(tl.int32).to(tl.int16)
            tl.store(weights + ((image * 2 + axis) * taps + tap) * shown + place, whole, mask=there)


@triton.jit
def resample(
    params, first, count, bits, weights, table, out,
    shown_rows, shown_columns, shown, taps,
    FIELDS: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, LOOKED_UP: tl.constexpr,
    PIXEL: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """Program (tile, image): ``out`` ``(B, CHANNELS, shown_rows, shown_columns)`` in the layout that is asked for.

    ``PIXEL``: bytes from pixel to pixel in every image, or 0 where they differ and ``params`` say.
    """
    tile, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    if INTERLEAVED:
        line = shown_columns * CHANNELS
        across = tl.cdiv(line, WIDE)
        value = (tile % across) * WIDE + tl.arange(0, WIDE)
        column, channel = value // CHANNELS, value % CHANNELS
        there = value < line
        to = value
        down = shown_columns * CHANNELS
        begin = out + image * shown_rows * line
    else:
        strips = tl.cdiv(shown_columns, WIDE)
        across = strips * CHANNELS
        plane = (tile % across) // strips
        column = (tile % strips) * WIDE + tl.arange(0, WIDE)
        channel = tl.zeros([WIDE], tl.int32) + plane
        there = column < shown_columns
        to = column
        down = shown_columns
        begin = out + (image * CHANNELS + plane) * shown_rows * shown_columns
    line_of = (tile // across) * TALL + tl.arange(0, TALL)

    at = params + image * (FIELDS + 4)
    source = tl.load(at).to(tl.pointer_type(tl.uint8))
    row_bytes = tl.load(at + 2)
    if PIXEL == 0:
        pixel_bytes = tl.load(at + 3)
    else:
        pixel_bytes = PIXEL
    rows, columns = image * 2 * shown, (image * 2 + 1) * shown
    first_row = tl.load(first + rows + line_of, mask=line_of < shown_rows, other=0)
    row_count = tl.load(count + rows + line_of, mask=line_of < shown_rows, other=0)
    first_column = tl.load(first + columns + column, mask=there, other=0)
    column_count = tl.load(count + columns + column, mask=there, other=0)
    row_bits, column_bits = tl.load(bits + image * 2), tl.load(bits + image * 2 + 1)
    row_weights = weights + rows * taps
    column_weights = weights + columns * taps

    used = row_count > 0
    top = tl.min(tl.where(used, first_row, 2147483647), axis=0)
    bottom = tl.max(tl.where(used, first_row + row_count, 0), axis=0)
    most = tl.max(column_count, axis=0)
    from_column = channel.to(tl.int64) * tl.load(at + 1) + first_column.to(tl.int64) * pixel_bytes

    total = tl.zeros([TALL, WIDE], tl.float32)
    for begin_row in range(top, bottom, ROWS):
        row = begin_row + tl.arange(0, ROWS)
        # A row past the last has no weight below; it is read again, not past the image's end.
        readable = tl.minimum(row, bottom - 1).to(tl.int64)
        pointers = source + readable[:, None] * row_bytes + from_column[None, :]
        sums = tl.zeros([ROWS, WIDE], tl.int32)
        for begin_tap in range(0, most, TAPS):
            for step in tl.static_range(TAPS):
                tap = begin_tap + step
                reads = tap < column_count
                weight = tl.load(column_weights + tap * shown + column, mask=reads, other=0).to(tl.int32)
                pixels = tl.load(pointers + tap * pixel_bytes, mask=reads[None, :], other=0)
                sums += weight[None, :] * pixels.to(tl.int32)
        sums = (sums + (1 << (column_bits - 1))) >> column_bits
        line_pixels = tl.minimum(sums, 255).to(tl.float32)
        tap = row[None, :] - first_row[:, None]
        reads = (tap >= 0) & (tap < row_count[:, None])
        weight = tl.load(row_weights + tap * shown + line_of[:, None], mask=reads, other=0).to(tl.float32)
        total += tl.sum(weight[:, :, None] * line_pixels[None, :, :], axis=1)

    whole = (total.to(tl.int32) + (1 << (row_bits - 1))) >> row_bits
    whole = tl.minimum(whole, 255)
    if LOOKED_UP:
        made = tl.load(table + channel[None, :] * 256 + whole)
    else:
        made = whole.to(tl.uint8)
    shows = (line_of < shown_rows)[:, None] & there[None, :]
    tl.store(begin + line_of[:, None] * down + to[None, :], made, mask=shows)


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
