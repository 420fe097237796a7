"""Which shards a text stands for: paths and URLs with ``{000..099}``, commas, ``*``, or a folder of them."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from datahub.core.errors import BadArgument, DatahubError
from datahub.core.refs import SHARDS
from datahub.core.urls import shown
from datahub.pack.ground import open_fs, translated
from datahub.pack.own.webdatasets import expand, parts
from datahub.store.record import FILENAME

COMPRESSED = re.compile(r"\.(?:tgz|tbz2?|txz|tar\.\w+|zip)$", re.IGNORECASE)
PATTERN = re.compile(r"[*?\[]")
WEB = ("http", "https")
HINT = "write paths or URLs, like shards/train-{000000..000146}.tar"


@dataclass(frozen=True, slots=True)
class Named:
    """A shard: its path or URL, and what the index calls it: a path below what all of them share."""

    url: str
    name: str

    @property
    def local(self) -> bool:
        return "://" not in self.url

    @property
    def shown(self) -> str:
        """The URL for people: without credentials and query."""
        return self.url if self.local else shown(self.url)


def names_shards(text: str) -> bool:
    """Whether a source says itself that it is shards, not the place of a packed variant."""
    if text.startswith(SHARDS):
        return True
    ends = [_path(part) for part in parts(text)]
    return all(end.lower().endswith(".tar") or COMPRESSED.search(end) for end in ends)


def holds_shards(place: str) -> bool:
    """Whether a folder, or a URL that can be listed, holds shards and no packed variant."""
    if _scheme(place) in WEB:
        return False
    try:
        names = [each.rpartition("/")[2] for each in _listed(place)]
    except DatahubError:
        return False
    return FILENAME not in names and any(name.endswith(".tar") or COMPRESSED.search(name) for name in names)


def find_shards(text: str) -> list[Named]:
    """The shards, in the order named; those of a folder or a pattern by name. Raises `BadArgument`, `OriginError`s."""
    places = [place for each in _each(text.removeprefix(SHARDS)) for place in _those(each)]
    if len(set(places)) < len(places):
        twice = next(each for at, each in enumerate(places) if each in places[:at])
        raise BadArgument("source", text, f"names {twice} twice", HINT)
    for each in places:
        if COMPRESSED.search(_path(each)):
            raise BadArgument("source", each, "is compressed: no sample in it can be read by itself", unpack(each))
    names = _names(places)
    return [Named(place, name) for place, name in zip(places, names, strict=True)]


def unpack(shard: str) -> str:
    """What to do about a shard that is compressed."""
    return f"decompress it, or pack it: `datahub pack 'wds:{shard}' NAME`"


def title(text: str) -> str:
    """A dataset's name made of its first shard's: what a ``wds:`` reference is called."""
    place = _path(next(parts(text.removeprefix(SHARDS)))).rstrip("/").rpartition("/")[2]
    words = re.sub(r"\{[^}]*\}|[*?\[\]]", "", place).partition(".")[0].lower().rstrip("0123456789")
    name = re.sub(r"[^a-z0-9._-]+", "-", words).strip("._-")[:64].strip("._-")
    return name or "shards"


def _each(text: str) -> list[str]:
    """Paths and URLs without braces and commas, unless a file or folder of this machine is called just so."""
    if not _scheme(text) and os.path.exists(os.path.expanduser(text)):  # noqa: PTH110, PTH111
        return [text]
    return [each for part in parts(text) for each in expand(part)]


def _those(place: str) -> list[str]:
    """What one path or URL without braces stands for."""
    if not place.strip():
        raise BadArgument("source", place, "names no shard", HINT)
    if place.startswith("pipe:"):
        raise BadArgument("source", place, "commands are not run", HINT)
    scheme = _scheme(place)
    if scheme in WEB:
        if "*" in _path(place) or place.endswith("/"):
            raise BadArgument("source", place, "a web server lists no files", "write their numbers: x-{000..146}.tar")
        return [place]
    if scheme == "file":
        place, scheme = place.removeprefix("file://"), ""
    if not scheme:
        place = os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111 - Path would follow links on the way
    found = _matching(place)
    if not found:
        raise BadArgument("source", place, "there is no such shard", "check the path, and that it ends in .tar")
    return found


def _matching(place: str) -> list[str]:
    if _scheme(place):
        return _matching_remote(place)
    if Path(place).is_dir():
        return [each for each in _listed(place) if _is_shard(each)]
    if PATTERN.search(place) and not Path(place).exists():
        return sorted(glob.glob(place))  # noqa: PTH207
    return [place] if Path(place).exists() else []


def _matching_remote(place: str) -> list[str]:
    scheme = _scheme(place)
    if _is_shard(_path(place)) and not PATTERN.search(_path(place)):
        return [place]  # whether it is there is asked with its size
    if not PATTERN.search(_path(place)):
        return [each for each in _listed(place) if _is_shard(each)]
    with translated(place):
        system, path = open_fs(place)
        system.invalidate_cache()  # what was listed a while ago may have changed
        return [f"{scheme}://{each.lstrip('/')}" for each in sorted(system.glob(path))]


def _listed(folder: str) -> list[str]:
    """The files right in a folder or at a URL, by name. Raises `OriginError`s, or none for what is no folder."""
    scheme = _scheme(folder)
    if not scheme:
        here = Path(folder)
        return sorted(str(each) for each in here.iterdir()) if here.is_dir() else []
    with translated(folder):
        system, path = open_fs(folder)
        system.invalidate_cache()
        try:
            found: list[Any] = system.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(f"{scheme}://{each.lstrip('/')}" for each in found if each.rstrip("/") != str(path).rstrip("/"))


def _is_shard(path: str) -> bool:
    return path.endswith(".tar") or bool(COMPRESSED.search(path))


def _names(places: list[str]) -> list[str]:
    """What remains of each place below the folder that all share; numbers where that tells them not apart."""
    paths = [_path(place) for place in places]
    folders = [path.rpartition("/")[0].split("/") for path in paths]
    shared = list(takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))
    below = ["/".join(path.split("/")[len(shared) :]) for path in paths]
    wrong = any(part in ("", ".", "..") for name in below for part in name.split("/"))
    if wrong or len(set(below)) < len(below) or any("\\" in name for name in below):
        return [f"shard-{number:06d}.tar" for number in range(len(places))]
    return below


def _path(place: str) -> str:
    """A URL without its query; a path as it is."""
    return place.partition("?")[0] if _scheme(place) in WEB else place


def _scheme(place: str) -> str:
    scheme, colon, _ = place.partition("://")
    return scheme if colon else ""
