"""How many worker threads a process may use: CPU affinity and cgroup quota, shared among the ranks of a machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MOST = 32
"""Threads beyond this wait for the interpreter's lock more than they decode."""


def available_cpus(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """CPUs this process may use, by affinity and by the quota of its cgroup and those above it (v2 and v1)."""
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cpus = os.cpu_count() or 1
    return max(1, int(min([cpus, *_quotas(cgroups, own)])))


def default_workers(environ: Mapping[str, str], *, processes: bool = False) -> int:
    """This rank's share of the CPUs, at most `MOST` threads; torchrun's LOCAL_WORLD_SIZE says how many ranks share."""
    ranks = environ.get("LOCAL_WORLD_SIZE", "")
    share = max(1, available_cpus() // max(1, int(ranks) if ranks.isdigit() else 1))
    return share if processes else min(MOST, share)


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """CPUs that each cgroup from this process's own up to the root may use.

    Lines of the own file are ``hierarchy:controllers:path``; version 2 has one, with neither number nor controllers.
    """
    for line in _words(own, "\n"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        version1 = "cpu" in controllers.split(",")
        if not version1 and controllers:
            continue
        root = cgroups / "cpu" if version1 else cgroups
        here = root / path.strip("/")
        for folder in (here, *here.parents):
            yield from _quota_v1(folder) if version1 else _quota_v2(folder)
            if folder == root:
                break


def _quota_v2(folder: Path) -> Iterator[float]:
    """``cpu.max`` holds microseconds of quota (or "max") and of period."""
    words = _words(folder / "cpu.max")
    if len(words) == 2 and words[0].isdigit():
        yield int(words[0]) / int(words[1])


def _quota_v1(folder: Path) -> Iterator[float]:
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if quota and period and quota[0].isdigit():  # -1: none
        yield int(quota[0]) / int(period[0])


def _words(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text().strip().split(separator)
    except OSError:
        return []
