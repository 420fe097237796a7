"""The resampling kernel: ragged images to tiles of a batch, cropped, scaled, mirrored, looked up and laid out.

A warp makes a tile, ``tall`` rows of `WIDE` values, one row after the other. It scales input rows horizontally, four at
a time, keeps what they give as the bytes of one number a value, rounded to 8 bits as torch does, and adds those up
vertically for each row of output: every input row is read and scaled once a tile, and what lies between the two passes
never leaves the registers. Four neighbouring pixels are cut out of two aligned words, and two ``dp2a`` add their
products with four weights. All sums are of whole numbers, so that the result is torch's to the bit.

Axes with more than four weights an output (scaled to less than half), or images that are not planar, take a plain way
through the same tables. Which way it is hangs on the image, not on the batch. What this compiles to, and what follows
for its speed, `docs/decisions.md` says.

Loops are ``while``: before Triton 3.7 its interpreter cannot count to a tensor with numpy 2.4.
"""

from __future__ import annotations

import triton
import triton.language as tl

ONE = tl.constexpr(16)
"""Bits behind the point of weights, in all but the strongest scaling; see `datahub.tensor.fused.kernel_tables`."""
FAST = tl.constexpr(4)
"""Weights an output that the fast way takes."""


@triton.jit
def weighed(low, high, shift, early, late, ASM: tl.constexpr):
    """32768 and the products of the four bytes that begin ``shift`` bits (mod 32) into ``low`` and ``high`` with four
    weights of 16 bits, two in ``early`` and two in ``late``."""
    if ASM:
        return tl.inline_asm_elementwise(
            """{ .reg .b32 four;
            shf.r.wrap.b32 four, $1, $2, $3;
            dp2a.lo.u32.u32 $0, $4, four, 32768;
            dp2a.hi.u32.u32 $0, $5, four, $0; }""",
            "=&r,r,r,r,r,r",
            [low, high, shift, early, late],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    both = (high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32) | low.to(tl.uint32, bitcast=True).to(tl.uint64)
    four = (both >> (shift & 31).to(tl.uint64)).to(tl.uint32).to(tl.int32, bitcast=True)
    total = 32768 + (four & 255) * (early & 65535) + ((four >> 8) & 255) * ((early >> 16) & 65535)
    return total + ((four >> 16) & 255) * (late & 65535) + ((four >> 24) & 255) * ((late >> 16) & 65535)


@triton.jit
def across_row(words, word, beyond, shift, early, late, ASM: tl.constexpr):
    """As `weighed`, of the words number ``word`` and ``word + 1``, or ``beyond`` where that comes before.

    Its loads are within the assembly: Triton would give lanes to them, not to what is written.
    """
    if ASM:
        return tl.inline_asm_elementwise(
            """{ .reg .b32 four, more, next; .reg .b64 at;
            mad.wide.s32 at, $2, 4, $1;
            ld.global.b32 four, [at];
            add.s32 next, $2, 1;
            min.s32 next, next, $3;
            mad.wide.s32 at, next, 4, $1;
            ld.global.b32 more, [at];
            shf.r.wrap.b32 four, four, more, $4;
            dp2a.lo.u32.u32 $0, $5, four, 32768;
            dp2a.hi.u32.u32 $0, $6, four, $0; }""",
            "=&r,l,r,r,r,r,r",
            [words, word, beyond, shift, early, late],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    there = words.to(tl.pointer_type(tl.int32))
    return weighed(tl.load(there + word), tl.load(there + tl.minimum(word + 1, beyond)), shift, early, late, False)


@triton.jit
def across_inner_row(words, word, shift, early, late, ASM: tl.constexpr):
    """As `across_row`, where ``word + 1`` is known to be there."""
    if ASM:
        return tl.inline_asm_elementwise(
            """{ .reg .b32 four, more; .reg .b64 at;
            mad.wide.s32 at, $2, 4, $1;
            ld.global.b32 four, [at];
            ld.global.b32 more, [at+4];
            shf.r.wrap.b32 four, four, more, $3;
            dp2a.lo.u32.u32 $0, $4, four, 32768;
            dp2a.hi.u32.u32 $0, $5, four, $0; }""",
            "=&r,l,r,r,r,r",
            [words, word, shift, early, late],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    there = words.to(tl.pointer_type(tl.int32))
    return weighed(tl.load(there + word), tl.load(there + word + 1), shift, early, late, False)


@triton.jit
def stacked(a, b, c, d, ASM: tl.constexpr):
    """Bits 16 to 23 of four numbers as the bytes of one."""
    if ASM:
        return tl.inline_asm_elementwise(
            """{ .reg .b32 one, two;
            prmt.b32 one, $1, $2, 0x0062;
            prmt.b32 two, $3, $4, 0x0062;
            prmt.b32 $0, one, two, 0x5410; }""",
            "=&r,r,r,r,r",
            [a, b, c, d],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    return (a >> 16) | ((b >> 16) << 8) | ((c >> 16) << 16) | ((d >> 16) << 24)


@triton.jit
def byte_at(base, offset, ASM: tl.constexpr):
    if ASM:
        return tl.inline_asm_elementwise(
            "{ .reg .b64 at; cvt.s64.s32 at, $2; add.s64 at, at, $1; ld.global.u8 $0, [at]; }",
            "=r,l,r",
            [base, offset],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    return tl.load(base.to(tl.pointer_type(tl.uint8)) + offset).to(tl.int32)


@triton.jit
def four_rows(words, row, bottom, row_bytes, offset, second, third, fourth, beyond, early, late, ASM: tl.constexpr):
    """The values of rows ``row`` to ``row + 3``, four bytes each. ``second`` to ``fourth``: offsets of those below."""
    if row + 3 < bottom:
        # Up to seven bytes behind what is wanted are read: the row below is at least as long.
        here = words + row.to(tl.int64) * row_bytes
        found = stacked(
            across_inner_row(here, offset >> 2, offset << 3, early, late, ASM),
            across_inner_row(here, second >> 2, second << 3, early, late, ASM),
            across_inner_row(here, third >> 2, third << 3, early, late, ASM),
            across_inner_row(here, fourth >> 2, fourth << 3, early, late, ASM),
            ASM,
        )
    else:
        # Rows past the last have no weight; the last is read in their place, and nothing behind its end.
        found = early * 0
        for step in tl.static_range(4):
            from_here = offset + tl.minimum(row + step, bottom) * row_bytes
            sums = across_row(words, from_here >> 2, beyond, from_here << 3, early, late, ASM)
            found = found | ((sums >> ONE) << (8 * step))
    return found


@triton.jit
def any_row(
    words, offset, row_bytes, pixel_bytes, rows, columns, inputs, most, there, row_bits, column_bits, ASM: tl.constexpr
):  # fmt: skip
    """A row of output from any number of inputs, byte by byte."""
    first, count = tl.load(rows), tl.load(rows + 1)
    total = inputs * 0
    tap = 0
    while tap < count:
        from_here = offset + (first + tap) * row_bytes
        sums = inputs * 0
        step = 0
        while step < most:
            inner = tl.minimum(step, tl.maximum(inputs - 1, 0))  # what is behind the last has no weight
            pair = tl.load(columns + 2 + (step >> 1), mask=there, other=0)
            weight = (pair >> ((step & 1) * 16)) & 65535
            sums += byte_at(words, from_here + inner * pixel_bytes, ASM) * weight
            step += 1
        sums = tl.minimum((sums + (1 << (column_bits - 1))) >> column_bits, 255)
        total += sums * ((tl.load(rows + 2 + (tap >> 1)) >> ((tap & 1) * 16)) & 65535)
        tap += 1
    return tl.minimum((total + (1 << (row_bits - 1))) >> row_bits, 255)


@triton.jit
def finished(whole, table, channel, slope, start, LOOKUP: tl.constexpr, KIND: tl.constexpr, ASM: tl.constexpr):
    """Pixel values to what is written: as they are (0), looked up (1), or on a line (2)."""
    if LOOKUP == 0:
        return whole.to(KIND)
    if LOOKUP == 1:
        return tl.load(table + channel * 256 + whole)
    made = tl.fma(whole.to(tl.float32), slope, start)
    if not ASM and tl.bfloat16 == KIND:  # the interpreter cuts bits off, where CUDA rounds
        number = made.to(tl.int32, bitcast=True)
        made = (number + 32767 + ((number >> 16) & 1)).to(tl.float32, bitcast=True)
    return made.to(KIND)


@triton.jit(do_not_specialize=["record", "tall", "tiles"])
def resample(
    params, spans, bits, table, out,
    shown_rows, shown_columns, shown, record, tall, tiles,
    FIELDS: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, LOOKUP: tl.constexpr,
    WIDE: tl.constexpr, ASM: tl.constexpr,
):  # fmt: skip
    """``out`` ``(B, CHANNELS, shown_rows, shown_columns)``, in its layout; a program for each of an image's ``tiles``.

    ``spans`` and ``bits`` are those of `datahub.tensor.fused.kernel_tables`. ``table``: see `finished`; on a line,
    float32 ``(CHANNELS, 2)``. ``ASM``: it is compiled for CUDA.
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
    top = (tile // across) * tall
    past = tl.minimum(top + tall, shown_rows)

    at = params + image * (FIELDS + 4)
    address, row_bytes, pixel_bytes = tl.load(at), tl.load(at + 2).to(tl.int32), tl.load(at + 3).to(tl.int32)
    bottom = tl.load(at + 8).to(tl.int32) - 1
    row_bits, column_bits = tl.load(bits + image * 4), tl.load(bits + image * 4 + 1)
    most_rows, most_columns = tl.load(bits + image * 4 + 2), tl.load(bits + image * 4 + 3)
    columns = spans + ((image * 2 + 1) * shown + column) * record
    rows = spans + (image * 2 * shown + top) * record
    early = tl.load(columns + 2, mask=there, other=0)
    late = tl.load(columns + 3, mask=there, other=0)
    inputs = tl.load(columns + 1, mask=there, other=0)
    # Words are counted from the one that holds the image's first byte. An image has less than 2^31 bytes.
    skipped = (address & 3).to(tl.int32)
    words = address - skipped
    offset = channel * tl.load(at + 1).to(tl.int32) + tl.load(columns, mask=there, other=0) * pixel_bytes + skipped
    if LOOKUP == 2:
        slope, start = tl.load(table + channel * 2), tl.load(table + channel * 2 + 1)
    else:
        slope, start = 0.0, 0.0
    none = tl.zeros([WIDE], tl.int32)
    begin += top * down

    planar = (pixel_bytes == 1) & (row_bytes >= 8)
    few = (most_rows <= FAST) & (most_columns <= FAST)
    if planar & few & (row_bits == ONE) & (column_bits == ONE):
        second, third, fourth = offset + row_bytes, offset + 2 * row_bytes, offset + 3 * row_bytes
        last = tl.max(tl.where(inputs > 0, offset + inputs - 1, 0), axis=0)
        beyond = none + ((last + bottom * row_bytes) >> 2)
        before, latest = none, none
        row = tl.load(rows) & -4
        while top < past:
            first = tl.load(rows)
            while row < (first & -4) + 8:
                before = latest
                latest = four_rows(
                    words, row, bottom, row_bytes, offset, second, third, fourth, beyond, early, late, ASM
                )
                row += 4
            pair, other = none + tl.load(rows + 2), none + tl.load(rows + 3)
            whole = weighed(before, latest, none + ((first & 3) << 3), pair, other, ASM) >> ONE
            made = finished(whole, table, channel, slope, start, LOOKUP, out.dtype.element_ty, ASM)
            tl.store(begin + to, made, mask=there)
            begin += down
            rows += record
            top += 1
    else:
        most = tl.max(inputs, axis=0)
        while top < past:
            whole = any_row(
                words, offset, row_bytes, pixel_bytes, rows, columns, inputs, most, there, row_bits, column_bits, ASM
            )
            made = finished(whole, table, channel, slope, start, LOOKUP, out.dtype.element_ty, ASM)
            tl.store(begin + to, made, mask=there)
            begin += down
            rows += record
            top += 1
