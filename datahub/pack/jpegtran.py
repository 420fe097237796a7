"""Running libjpeg-turbo's ``jpegtran``: lossless re-encoding of a JPEG's coefficients.

Bytes go in and come out through memory files, which no full pipe can block, and the process gets those three
descriptors only, an environment without variables of ours, and a deadline.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
from typing import NamedTuple

from datahub.core.errors import MissingTool, from_oserror

TOOL, PACKAGE = "jpegtran", "libjpeg-turbo-progs"
WARNED = 2
"""Exit status over damaged data that could be read nevertheless."""
CAUTION = "Caution: "
"""How a remark starts that says nothing of damage, such as on quantisation tables of 16 bits."""
NOT_RUN = 127
"""Exit status of a program whose libraries were not found."""
ENVIRONMENT = {"LC_ALL": "C"}
STANDARD = (0, 1, 2)


class Outcome(NamedTuple):
    """``code`` is the exit status, minus the signal that ended it, or None past the deadline."""

    code: int | None
    output: bytes
    message: str


def find_jpegtran() -> str:
    """Path of the program. Raises `MissingTool`."""
    path = shutil.which(TOOL)
    if path is None:
        raise MissingTool(TOOL, PACKAGE)
    return path


def transcode(tool: str, data: bytes, interval: int, seconds: float) -> Outcome:
    """``data`` as baseline with optimised Huffman tables and a restart marker every ``interval`` MCUs.

    All markers are kept. Raises `MissingTool` when ``tool`` cannot be run, `DiskError` when the system refuses.
    """
    argv = (tool, "-copy", "all", "-optimize", "-restart", f"{interval}B")
    files: list[int] = []
    try:
        for _ in STANDARD:
            files.append(_memory_file())
        _write(files[0], data)
        code = _run(tool, argv, files, seconds)
        return Outcome(code, _content(files[1]), _content(files[2]).decode("ascii", "replace").strip())
    except OSError as error:
        raise from_oserror(error, tool) from error
    finally:
        for fd in files:
            os.close(fd)


def _run(tool: str, argv: tuple[str, ...], files: list[int], seconds: float) -> int | None:
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(files, STANDARD, strict=True)]
    closing = [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
    try:
        # A group of its own: Ctrl-C is for us, and must not look like a damaged image.
        pid = os.posix_spawn(tool, argv, ENVIRONMENT, file_actions=[*actions, *closing], setpgroup=0)
    except (FileNotFoundError, PermissionError) as error:
        raise MissingTool(TOOL, PACKAGE) from error
    code = _wait(pid, seconds)
    if code == NOT_RUN:
        raise MissingTool(TOOL, PACKAGE)
    return code


def _wait(pid: int, seconds: float) -> int | None:
    """Exit code, or None past the deadline; the process is gone either way, also when we are interrupted."""
    ended, handle = False, -1
    try:
        handle = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        ended = bool(poll.poll(seconds * 1000))
    finally:
        if handle >= 0:
            os.close(handle)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status) if ended else None


def _inheritable() -> list[int]:
    """Descriptors above 2 that a child would get: not those Python opens, but those this process was started with."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib makes this ten times slower
        fd = int(name)
        try:
            if fd not in STANDARD and os.get_inheritable(fd):
                found.append(fd)
        except OSError:  # closed meanwhile, such as the listing's own
            continue
    return found


def _memory_file() -> int:
    """A memory file whose descriptor is above 2, so that no redirection overwrites another's source."""
    fd = os.memfd_create(TOOL)
    if fd not in STANDARD:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(STANDARD))
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    """``data`` into the file; its position, which the child shares, stays at the start."""
    view, at = memoryview(data), 0
    while at < len(view):
        at += os.pwrite(fd, view[at:], at)


def _content(fd: int) -> bytes:
    size, parts, at = os.fstat(fd).st_size, [], 0
    while at < size:
        part = os.pread(fd, size - at, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
