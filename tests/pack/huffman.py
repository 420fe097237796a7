"""A baseline JPEG's quantised coefficients, decoded plainly from ITU-T T.81 (F.2.2, Annex C), for small images."""

from __future__ import annotations

from datahub.pack import jpeg

Codes = dict[tuple[int, int], int]
"""(length, code) -> symbol."""


class _Bits:
    def __init__(self, entropy: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in entropy.replace(b"\xff\x00", b"\xff"))
        self._at = 0

    def take(self, count: int) -> int:
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def symbol(self, codes: Codes) -> int:
        code = 0
        for length in range(1, 17):
            code = code << 1 | self.take(1)
            if (length, code) in codes:
                return codes[length, code]
        raise ValueError("no such code")

    def signed(self, size: int) -> int:
        value = self.take(size) if size else 0
        return value if not size or value >> (size - 1) else value - (1 << size) + 1


def coefficients(data: bytes) -> dict[tuple[int, int, int], tuple[int, ...]]:
    """(component, block column, block row) -> 64 coefficients in zigzag order, blocks of whole MCUs."""
    header = jpeg.read(data)
    tables = _tables(data, header)
    scan = data[header.sos : header.entropy]
    choice = {scan[5 + 2 * i]: scan[6 + 2 * i] for i in range(scan[4])}
    alone = len(header.components) == 1
    columns = -(-header.width // header.mcu[0])
    total = columns * -(-header.height // header.mcu[1])
    found = {}
    for start, bits in enumerate(_segments(data, header)):
        previous = dict.fromkeys(range(len(header.components)), 0)
        step = header.restart or total
        for mcu in range(start * step, min((start + 1) * step, total)):
            for number, component in enumerate(header.components):
                h, v = (1, 1) if alone else (component.h, component.v)
                dc, ac = (tables[choice[component.id] >> 4], tables[16 | choice[component.id] & 15])
                for block in range(h * v):
                    values = _block(bits, dc, ac)
                    previous[number] += values[0]
                    place = number, mcu % columns * h + block % h, mcu // columns * v + block // h
                    found[place] = (previous[number], *values[1:])
    return found


def _block(bits: _Bits, dc: Codes, ac: Codes) -> list[int]:
    values = [bits.signed(bits.symbol(dc))] + [0] * 63
    k = 1
    while k < 64:
        run, size = divmod(bits.symbol(ac), 16)
        if not size and run != 15:
            break
        k += run
        values[k] = bits.signed(size)
        k += 1
    return values


def _segments(data: bytes, header: jpeg.Header) -> list[_Bits]:
    entropy, parts, start = data[header.entropy : data.rindex(b"\xff\xd9")], [], 0
    for at in range(len(entropy) - 1):
        if entropy[at] == 0xFF and 0xD0 <= entropy[at + 1] <= 0xD7:
            parts.append(_Bits(entropy[start:at]))
            start = at + 2
    return [*parts, _Bits(entropy[start:])]


def _tables(data: bytes, header: jpeg.Header) -> dict[int, Codes]:
    """Class and number, as in DHT -> codes."""
    found = {}
    for marker, start, end in header.segments:
        at = start + 4
        while marker == jpeg.DHT and at < end:
            counts, codes, code, symbol = data[at + 1 : at + 17], {}, 0, at + 17
            for length, count in enumerate(counts, 1):
                for _ in range(count):
                    codes[length, code] = data[symbol]
                    code, symbol = code + 1, symbol + 1
                code <<= 1
            found[data[at]] = codes
            at = symbol
    return found
