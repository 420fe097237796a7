"""What archive walkers share: the caps, a member, and the checks every member must pass before it is handed out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from datahub.core.errors import LayoutError, UnsafeArchive
from datahub.core.sizes import format_bytes
from datahub.pack.inflate import STEP, Reader, Stream

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps of one archive. The defaults let the largest published ones pass (ILSVRC: a 138 GB tar of a thousand tars,
    1.3 million files); a layout that knows its archive sets tighter ones.
    """

    members: int = 2_000_000
    """Headers of any kind, folders included."""
    name: int = 1024
    """Bytes of a member's name."""
    member: int = 64 << 30
    """Bytes of one member, decompressed."""
    total: int = 1 << 40
    """Bytes of all members, decompressed."""
    ratio: int = 200
    """Zip only: how many times its compressed size a member may be, beyond its first MiB."""


DEFAULT = Limits()


class Member:
    """One regular file of an archive, readable once and only until the next member is asked for."""

    __slots__ = ("_left", "_path", "_source", "name", "offset", "size")

    def __init__(self, name: str, size: int, source: Reader, path: str) -> None:
        self.name, self.size = name, size
        self.offset = source.at if isinstance(source, Stream) else 0
        """Of a tar's member: where its data begin in the (decompressed) archive."""
        self._source, self._path, self._left = source, path, size

    @property
    def source(self) -> Reader:
        """What the data are read from."""
        return self._source

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes (all that are left by default), ``b""`` at the end.

        Raises `LayoutError` where the archive ends before the member does.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        if wanted <= STEP:
            return self._piece(wanted)
        data = bytearray()  # grows with what comes, not with what the header says
        while len(data) < wanted:
            data += self._piece(min(STEP, wanted - len(data)))
        return bytes(data)

    def drain(self) -> None:
        """Pass over what is left."""
        if isinstance(self._source, Stream):
            self._left -= self._source.skip(self._left)
            if self._left:
                raise self._truncated()
        while self._left:
            self._piece(min(STEP, self._left))

    def _piece(self, size: int) -> bytes:
        if not size:
            return b""
        piece = self._source.read(size)
        self._left -= len(piece)
        if len(piece) < size:
            raise self._truncated()
        return piece

    def _truncated(self) -> LayoutError:
        had = self.size - self._left
        return LayoutError(self._path, self.name, f"truncated: {had} bytes instead of {self.size}")


class Gate:
    """Counts what has passed and refuses what may not: names that leave the folder, and anything over a cap."""

    def __init__(self, path: str, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self._members = 0
        self._total = 0

    def admit(self, name: str, size: int) -> None:
        """Raises `UnsafeArchive`. Every header passes here: folders too, and members nobody will read."""
        limits = self.limits
        self._members += 1
        self._total += size
        if self._members > limits.members:
            raise self.refusal(name, f"is one too many: at most {limits.members} are read")
        if reason := _unsafe(name, limits.name):
            raise self.refusal(name, reason)
        if size > limits.member:
            raise self.refusal(name, f"holds {format_bytes(size)}: at most {format_bytes(limits.member)} are read")
        if self._total > limits.total:
            raise self.refusal(
                name, f"brings the total to {format_bytes(self._total)}, over {format_bytes(limits.total)}"
            )

    def refusal(self, name: str, reason: str) -> UnsafeArchive:
        shown = name if len(name) <= 120 else f"{name[:117]}..."
        return UnsafeArchive(self.path, shown, reason)

    def text(self, name: bytes) -> str:
        """A member's name as text; raises `UnsafeArchive` where it is not UTF-8."""
        try:
            return name.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refusal(name.decode("utf-8", "backslashreplace"), "has a name that is not UTF-8") from None


def _unsafe(name: str, longest: int) -> str:
    """Why no member may have this name, or ""."""
    if not name:
        return "has no name"
    if len(name.encode("utf-8", "replace")) > longest:
        return f"has a name of more than {longest} bytes"
    if name.startswith("/") or DRIVE.match(name):
        return "has an absolute name"
    if "\\" in name:
        return "has a backslash in its name"
    if ".." in name.split("/"):
        return "has '..' in its name"
    if CONTROL.search(name):
        return "has a control character in its name"
    return ""
