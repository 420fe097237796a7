"""Several ranges in one answer (RFC 9110, 14.6): ``multipart/byteranges``, as it is written and as it is read.

The reader is strict: parts come in the order in which they were asked for, each exactly the range that was named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from datahub.wire.ranges import Range

KIND = "multipart/byteranges"
HEAD = 1024
"""Bytes that the head of a part may take."""
BOUNDARY = re.compile(r'boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})"?')
CONTENT_RANGE = re.compile(rb"\r\ncontent-range:[ \t]*bytes (\d{1,20})-(\d{1,20})/", re.IGNORECASE)


class Unlike(ValueError):
    """An answer that is not what was asked for."""


def head_of(boundary: str, kind: str, span: Range, total: int) -> bytes:
    """What stands before the bytes of a part."""
    text = f"\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {span.content(total)}\r\n\r\n"
    return text.encode()


def end_of(boundary: str) -> bytes:
    return f"\r\n--{boundary}--\r\n".encode()


def boundary_of(content_type: str) -> str | None:
    """The boundary that a Content-Type names; None where it is of another kind."""
    if not content_type.lower().startswith(KIND):
        return None
    match = BOUNDARY.search(content_type)
    return match[1] if match else None


def parts(chunks: Iterator[bytes], boundary: str, spans: Sequence[Range]) -> Iterator[bytes]:
    """The bytes of each range, whole, as they come. Raises `Unlike` where the answer is another, or ends early."""
    stream, line = _Stream(chunks), b"--" + boundary.encode()
    for span in spans:
        head = stream.head()
        match = CONTENT_RANGE.search(head)
        if not head.lstrip(b"\r\n").startswith(line) or match is None:
            raise Unlike("a part has no head, or one of another kind")
        if (int(match[1]), int(match[2])) != (span.start, span.end - 1):
            raise Unlike(f"a part holds {match[0].strip().decode()!r} in place of {span.header()}")
        yield stream.take(span.size)
    left = HEAD
    for chunk in chunks:  # what closes the last part; a connection that was read to its end is used again
        left -= len(chunk)
        if left < 0:
            return


class _Stream:
    """Chunks, cut anew."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._chunk, self._at = chunks, b"", 0

    def head(self) -> bytes:
        """Bytes up to and with the empty line."""
        found = self._chunk[self._at : self._at + HEAD]
        while (end := found.find(b"\r\n\r\n", 2)) < 0:
            if len(found) >= HEAD:
                raise Unlike("a part's head has no end")
            self._chunk, self._at = found + self._more(), 0
            found = self._chunk[:HEAD]
        self._at += end + 4
        return found[: end + 4]

    def take(self, size: int) -> bytes:
        found = self._chunk[self._at : self._at + size]
        self._at += len(found)
        if len(found) == size:
            return found
        pieces, left = [found], size - len(found)
        while left:
            self._chunk = self._more()
            self._at = min(left, len(self._chunk))
            pieces.append(self._chunk[: self._at])
            left -= self._at
        return b"".join(pieces)

    def _more(self) -> bytes:
        chunk = next(self._chunks, b"")
        if not chunk:
            raise Unlike("the answer ends within a part")
        return chunk
