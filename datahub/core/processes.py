"""Who a process is, so that others can tell whether it still lives: a reused pid is not taken for the old owner."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path


def machine() -> str:
    """This boot and process namespace; pids mean the same thing only within one."""
    with suppress(OSError):
        return f"{socket.gethostname()}/{boot()}/{Path('/proc/self/ns/pid').readlink()}"
    return f"{socket.gethostname()}//"


def boot() -> str:
    """Changes whenever the machine starts anew; "" where the system does not say."""
    return read("/proc/sys/kernel/random/boot_id")


def started(pid: int) -> str:
    """The kernel's start time of ``pid``, so that a reused pid is not taken for the old owner; "" if it is gone."""
    facts = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return facts[19] if facts and facts[0] not in "ZX" else ""  # a killed child stays a zombie until it is waited for


def identity() -> str:
    """This process, among all that share a disk."""
    return f"{machine()} {os.getpid()} {started(os.getpid())}"


def gone(who: str) -> bool:
    """Whether the process of that `identity` is known to have ended; one of another namespace is not known."""
    try:
        where, pid, since = who.rsplit(" ", 2)
        return where == machine() and started(int(pid)) != since
    except ValueError:
        return True


def read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
