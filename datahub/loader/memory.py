"""Memory that this process may still take: the machine's, and what the cgroups it is in leave of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datahub.loader.workers import CGROUPS, OWN_CGROUP

MEMINFO = Path("/proc/meminfo")
_V1_NONE = 1 << 60
"""Version 1 writes a number beyond any machine where there is no limit."""


def available_memory(meminfo: Path = MEMINFO, cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int | None:
    """Bytes; None where the system does not say. Cached file pages count as free: the kernel gives them up."""
    found = [*_machine(meminfo), *_cgroups(cgroups, own)]
    return max(0, min(found)) if found else None


def _machine(meminfo: Path) -> Iterator[int]:
    for line in _text(meminfo).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and (number := rest.split()[:1]) and number[0].isdigit():
            yield int(number[0]) << 10


def _cgroups(cgroups: Path, own: Path) -> Iterator[int]:
    """What each cgroup from this process's own up to the root leaves (v2 and v1), file pages not counted as used."""
    for line in _text(own).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        version1 = "memory" in controllers.split(",")
        if not version1 and controllers:
            continue
        root = cgroups / "memory" if version1 else cgroups
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version1 else ("memory.max", "memory.current")
        here = root / path.strip("/")
        for folder in (here, *here.parents):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None and limit < _V1_NONE:
                yield limit - used + _file_pages(folder / "memory.stat")
            if folder == root:
                break


def _file_pages(stat: Path) -> int:
    for line in _text(stat).splitlines():
        name, _, number = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and number.isdigit():
            return int(number)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
