"""Published archives (tar plain or compressed, zip) walked as streams: regular members only, nothing extracted.

    for member in walk(path, limits):
        if member.name == wanted:
            data = member.read()

Folders are passed over. Links, devices, sparse files, names that leave the folder and anything over a cap are refused
with `UnsafeArchive`, also where nobody would read the member; truncated archives and files that are none raise
`LayoutError`. A member can be read until the next one is asked for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from datahub.core.errors import LayoutError, NotReadable
from datahub.pack import untar, unzip
from datahub.pack.inflate import Stream
from datahub.pack.members import DEFAULT, Limits, Member

__all__ = ["DEFAULT", "Limits", "Member", "find", "opened", "walk", "walk_tar"]

ZIP = (b"PK\3\4", b"PK\5\6")
"""First bytes of zips: a member, or the end of an empty one."""


def walk(path: Path, limits: Limits = DEFAULT) -> Generator[Member, None, None]:
    """The regular members of the archive at ``path``."""
    with opened(path) as (handle, zipped):
        if zipped:
            yield from unzip.walk(handle, str(path), limits)
        else:
            yield from untar.walk(Stream(handle, str(path)), limits)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """An archive at its beginning, and whether its first bytes are a zip's. Raises `NotReadable`."""
    try:
        handle = path.open("rb")
    except OSError as error:
        raise NotReadable(str(path), error.strerror or str(error)) from error
    with handle:
        head = handle.read(4)
        handle.seek(0)
        yield handle, head in ZIP


def walk_tar(member: Member, path: str, limits: Limits = DEFAULT) -> Iterator[Member]:
    """The members of a tar (plain or compressed) that is itself a ``member`` of the archive ``path``."""
    return untar.walk(Stream(member, f"{path}/{member.name}"), limits)


@contextmanager
def find(path: Path, name: str, limits: Limits = DEFAULT) -> Iterator[Member]:
    """The first member called ``name``; `LayoutError` where there is none."""
    with closing(walk(path, limits)) as members:
        for member in members:
            if member.name == name:
                yield member
                return
        raise LayoutError(str(path), "", f"has no member {name!r}")
