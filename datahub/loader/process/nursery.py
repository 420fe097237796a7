"""The process that worker processes are forked from: it has imported what they need, and runs nothing else.

Forking the caller's process would copy its locks and threads in whatever state they are; starting each worker anew
would import torch once a worker, each time into memory of its own. This one has no threads when it forks (unless the
import of a callable's module starts some), and its workers share its memory. It ends with the caller's end of
``control``, and its workers end with it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from contextlib import suppress

BORN = struct.Struct("=qqq")
"""A report on ``control``: number of a worker, its process, and -1 as it begins or its wait status as it ended."""
GRACE = 1.0
"""Seconds that workers have to finish what they are in once the caller is gone."""
_PR_SET_PDEATHSIG = 1


def main(control: int, kit: int, floor: int, *lines: int) -> None:
    """Fork a worker for each of ``lines``, report on ``control`` (all are descriptors), and end when it ends."""
    from datahub.loader.process.kit import foresee
    from datahub.loader.process.workshop import work

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    told = socket.socket(fileno=control)
    data, low = _whole(kit), mmap.mmap(floor, 8, access=mmap.ACCESS_READ)
    foresee(data)
    gc.collect()
    gc.freeze()
    running: dict[int, int] = {}
    for number, line in enumerate(lines):
        pid = _fork()
        if not pid:
            for other in (control, kit, floor, *lines[:number], *lines[number + 1 :]):
                os.close(other)
            _end_with_parent()
            status = 1
            try:
                work(socket.socket(fileno=line), data, low)
                status = 0
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        running[pid] = number
        with suppress(OSError):  # the caller may be gone by now, which is seen below
            told.sendall(BORN.pack(number, pid, -1))
    for line in lines:
        os.close(line)
    _watch(told, running)
    os._exit(0)  # there is nothing to finish, and torch takes its time


def _fork() -> int:
    with warnings.catch_warnings():
        # Python counts the sleeping threads of a linear-algebra library that its own fork handlers take care of.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _whole(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def _end_with_parent() -> None:
    """A worker that hangs must not outlive the process that would end it."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:
        os._exit(1)


def _watch(told: socket.socket, running: dict[int, int]) -> None:
    """Report workers that end, until all have or the caller is gone; then see them off."""
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(told, select.POLLIN)
    poll.register(woken, select.POLLIN)
    deadline: float | None = None
    _reap(told, running)
    while running:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        events = dict(poll.poll(None if left is None else left * 1000))
        with suppress(BlockingIOError):
            woken.recv(4096)
        if told.fileno() in events:
            poll.unregister(told)
            deadline = time.monotonic() + GRACE
        _reap(told, running)
        if deadline is not None and time.monotonic() >= deadline:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 3600


def _reap(told: socket.socket, running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with suppress(OSError):
            told.sendall(BORN.pack(running.pop(pid), pid, status))
