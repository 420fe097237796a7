"""Three Triton kernels: weight tables and a resampling pass for ragged batches, and a gather for uniform ones.

`tables` makes, for each image and axis, what `datahub.tensor.fused.weights` says: first input, number of inputs and the
weights of each shown pixel, two in a number. `resample` then makes a tile of the batch, `TALL` rows by `WIDE` of a
row's values, in one warp: it scales the input rows the tile depends on, four at a time, horizontally, rounds them to 8
bits as torch does, and adds them up vertically in registers. Each input row is read once a tile, and what lies between
the two passes never leaves the chip. All sums are of whole numbers, so that the result is torch's to the bit.

Laid out interleaved, a tile's values are neighbouring (column, channel) pairs, and planar, neighbouring columns of one
channel: either way a warp writes whole sectors. Four pixels of a row are cut out of two aligned words, and `dp2a` adds
their products with four weights in two instructions. The table turns a pixel value into whatever number is wanted.

Estimate for an H100, 256 crops of 1.2 times 224 x 224 to bf16: 77 MB are written and 55 read, 47 us at the 2.8 TB/s of
a copy. Counted in its compiled code (sm_90) a value costs 88 instructions, 117 us of all schedulers' slots:
instructions bind it, at about two fifths of a copy's bandwidth. Nobody has timed it yet.
"""

from __future__ import annotations

import triton
import triton.language as tl

"""Numbers of an image in ``params``, int64, FIELDS of them and then four of float64: its address; bytes from channel to
channel, row to row, pixel to pixel; whether it is mirrored; of rows, then of columns, the corner, the scaled size, and
first and past-the-last input; the box's start and length, of rows, then of columns."""


@triton.jit(do_not_specialize=["taps", "fours"])
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
            early, late = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32)
            for step in tl.static_range(4):
                at_tap = group * 4 + step - skipped
                away = tl.abs((lowest + at_tap).to(tl.float64) - centre + 0.5) * inverse
                share = tl.where((at_tap >= 0) & (at_tap < size), tl.maximum(1.0 - away, 0.0), 0.0) / total
                whole = (share * one + 0.5).to(tl.int32)
                if step < 2:
                    early += whole << (16 * step)
                else:
                    late += whole << (16 * (step - 2))
            tl.store(into + 2 * group * shown, early, mask=there)
            tl.store(into + (2 * group + 1) * shown, late, mask=there)


@triton.jit
def products(pixels, early, late, total, DOT: tl.constexpr):
    """``total`` and the products of four bytes with four weights of 16 bits, two in ``early`` and two in ``late``."""
    if DOT:
        return tl.inline_asm_elementwise(
            "dp2a.lo.u32.u32 $0, $2, $1, $4; dp2a.hi.u32.u32 $0, $3, $1, $0;",
            "=&r,r,r,r,r",
            [pixels, early, late, total],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    total += (pixels & 255) * (early & 65535) + ((pixels >> 8) & 255) * ((early >> 16) & 65535)
    return total + ((pixels >> 16) & 255) * (late & 65535) + ((pixels >> 24) & 255) * ((late >> 16) & 65535)


@triton.jit(do_not_specialize=["fours"])
def resample(
    params, first, count, bits, weights, table, out,
    shown_rows, shown_columns, shown, fours, tiles,
    FIELDS: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, LOOKED_UP: tl.constexpr,
    PIXEL: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """``out`` ``(B, CHANNELS, shown_rows, shown_columns)``, in its layout; a program for each of an image's ``tiles``.

    ``PIXEL``: bytes from pixel to pixel in every image, or 0 where they differ and ``params`` say. ``DOT``: the sum of
    four products is two instructions.
    """
    tile, image = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
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

    total = tl.zeros([TALL, WIDE], tl.int32)
    for begin_row in range(top, bottom, 4):
        # A row past the last has no weight; another is read in its place, not what is past the image's end.
        row = tl.minimum(begin_row + tl.arange(0, 4), bottom - 1).to(tl.int64)
        offset = row[:, None] * row_bytes + from_column[None, :]
        sums = tl.zeros([4, WIDE], tl.int32)
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
            early = tl.load(weight, mask=there, other=0)[None, :] + sums * 0
            late = tl.load(weight + shown, mask=there, other=0)[None, :] + sums * 0
            sums = products(pixels, early, late, sums, DOT)
        sums = tl.minimum((sums + (1 << (column_bits - 1))) >> column_bits, 255)
        # Four rows below each other are the bytes of one number, as are their weights in each line of output.
        stacked = tl.sum(sums << (8 * tl.arange(0, 4))[:, None], axis=0)
        group = (begin_row - (first_row & -4)) // 4
        reads = shows & (begin_row >= (first_row & -4)) & (begin_row < first_row + row_count)
        weight = row_weights + group * 2 * shown
        early = tl.load(weight, mask=reads, other=0)[:, None] + total * 0
        late = tl.load(weight + shown, mask=reads, other=0)[:, None] + total * 0
        total = products(stacked[None, :] + total * 0, early, late, total, DOT)

    whole = tl.minimum((total + (1 << (row_bits - 1))) >> row_bits, 255)
    if LOOKED_UP:
        made = tl.load(table + channel[None, :] * 256 + whole)
    else:
        made = whole.to(tl.uint8)
    tl.store(begin + line_of[:, None] * down + to[None, :], made, mask=shows[:, None] & there[None, :])


@triton.jit
def moved(
    pixels, given, fill, table, out,
    height, width, tall, wide, blocks,
    CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, LOOKED_UP: tl.constexpr, MODE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """See `datahub.tensor.fused.moving`; a program for each of an output's ``blocks`` of values."""
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
