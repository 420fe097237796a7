"""The kernel of weight tables: what `datahub.tensor.fused.weights` says, for each image and axis of a batch.

``spans`` int32 ``(B, 2, shown, record)``, of rows and then of columns: first input and number of inputs of each shown
pixel, then its weights, two of 16 bits in a number. ``bits`` int32 ``(B, 4)``: bits behind the weights' point, of rows
and columns, and the most inputs that any of their pixels has.

torch gives weights the most bits that keep the greatest below 2^15: 14 to 16 unless an axis is scaled to less than a
quarter. Here they then all have 16, which is the same sums with zeros behind them, so that pixels lie in a byte of
their own. One weight does not fit into 16 bits so, 1.0: it stands alone, and 65535 / 65536 of a pixel, rounded, is the
pixel.
"""

from __future__ import annotations

import triton
import triton.language as tl

"""Numbers of an image in ``params``, int64, FIELDS of them and then four of float64: its address; bytes from channel to
channel, row to row, pixel to pixel; whether it is mirrored; of rows, then of columns, the corner, the scaled size, and
first and past-the-last input; the box's start and length, of rows, then of columns."""


@triton.jit
def shares(lowest, size, centre, inverse, tap):
    """Weights of one input each, not yet parts of a whole."""
    away = tl.abs((lowest + tap).to(tl.float64) - centre + 0.5) * inverse
    return tl.where((tap >= 0) & (tap < size), tl.maximum(1.0 - away, 0.0), 0.0)


@triton.jit(do_not_specialize=["shown", "record"])
def tables(
    params, boxes, spans, bits, shown_rows, shown_columns, shown, record, FIELDS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """A program for each (image, axis). To be compiled without fused multiply-adds: numpy has none."""
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
    taps = (2.0 * support).to(tl.int32) + 2
    pairs = tl.minimum(tl.maximum(taps // 2 + 1, 2), record - 2)  # the fast way reads two

    # The greatest weight of the whole axis, also outside of the window, decides how many bits weights have.
    greatest = tl.zeros([BLOCK], tl.float64)
    begin = 0
    while begin < scaled:
        place = begin + tl.arange(0, BLOCK)
        centre = start + scale * (place.to(tl.float64) + 0.5)
        lowest = tl.maximum((centre - support + 0.5).to(tl.int64), low)
        size = tl.minimum((centre + support + 0.5).to(tl.int64), high) - lowest
        total, peak = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        tap = 0
        while tap < taps:
            weight = shares(lowest, size, centre, inverse, tap)
            total += weight
            peak = tl.maximum(peak, weight)
            tap += 1
        greatest = tl.maximum(greatest, tl.where(place < scaled, peak, 0.0) / tl.where(place < scaled, total, 1.0))
        begin += BLOCK
    peak_weight = tl.max(greatest, axis=0)
    precision = 0
    power = 2.0
    for _ in range(0, 22):
        precision += ((0.5 + peak_weight * power).to(tl.int64) < 32768).to(tl.int32)
        power *= 2.0
    one = (tl.full([1], 1, tl.int64) << precision).to(tl.float64)
    widened = tl.maximum(16 - precision, 0)

    extent = tl.where(axis == 0, shown_rows, shown_columns)
    out = spans + (image * 2 + axis) * shown * record
    most = tl.zeros([BLOCK], tl.int32)
    begin = 0
    while begin < extent:
        place = begin + tl.arange(0, BLOCK)
        there = place < extent
        source = corner + tl.where(flip, extent - 1 - place, place)
        inside = (source >= 0) & (source < scaled)
        # What shows nothing begins where its neighbour does: rows are taken in order.
        nearest = tl.minimum(tl.maximum(source, 0), scaled - 1)
        centre = start + scale * (nearest.to(tl.float64) + 0.5)
        lowest = tl.maximum((centre - support + 0.5).to(tl.int64), low)
        size = tl.where(inside, tl.minimum((centre + support + 0.5).to(tl.int64), high) - lowest, 0)
        total = tl.zeros([BLOCK], tl.float64)
        tap = 0
        while tap < taps:
            total += shares(lowest, size, centre, inverse, tap)
            tap += 1
        total = tl.where(inside, total, 1.0)
        most = tl.maximum(most, tl.where(there, size, 0).to(tl.int32))
        into = out + place * record
        tl.store(into, lowest.to(tl.int32), mask=there)
        tl.store(into + 1, size.to(tl.int32), mask=there)
        pair = 0
        while pair < pairs:
            both = tl.zeros([BLOCK], tl.int32)
            for step in tl.static_range(2):
                share = shares(lowest, size, centre, inverse, pair * 2 + step) / total
                whole = tl.minimum((share * one + 0.5).to(tl.int32) << widened, 65535)
                both += whole << (16 * step)
            tl.store(into + 2 + pair, both, mask=there)
            pair += 1
        begin += BLOCK
    tl.store(bits + image * 4 + axis, precision + widened)
    tl.store(bits + image * 4 + 2 + axis, tl.max(most, axis=0))
