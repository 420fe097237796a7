"""``datahub serve``: one process, or several on one port, watched by a parent.

The parent opens every process's socket (SO_REUSEPORT: the kernel spreads connections) and keeps it open, so that a
process that dies leaves its clients in the queue of the one that takes its place. That one is a fork of a parent which
has loaded everything: it answers at once, however busy the machine is.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from datahub.core.errors import BadArgument, DatahubError, WorkerDied
from datahub.core.events import Note
from datahub.core.settings import Settings
from datahub.serve.config import BACKLOG, STALL, ServeConfig, Tokens, exposures, tokens_of
from datahub.serve.loading import load
from datahub.serve.origins import OWN, normal
from datahub.store.find import roots

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
ENDING = (signal.SIGTERM, signal.SIGINT)
HELD = {signal.SIGHUP, signal.SIGTERM}
"""Signals that a process which starts is not told before its loop hears them: they would look like a failure."""
SOON, OFTEN = 2.0, 5
"""A process that dies within so many seconds, so many times in a row, is not started again."""
SWITCH = 0.0005
"""Seconds after which a thread that computes gives way to the one that answers."""
PATIENCE = 5.0
"""Seconds beyond the drain after which a process that does not end is killed."""


@dataclass(slots=True)
class _Worker:
    number: int
    since: float
    quick: int = 0
    """Times in a row that it died at once."""


def run(config: ServeConfig, settings: Settings, started: Callable[[str], None]) -> int:
    """Serve until a signal comes; the exit code. ``started`` is told the URL once clients can connect.

    Raises `BadArgument`, `DiskError`s, and `WorkerDied` where a process cannot be kept alive.
    """
    tokens = tokens_of(config)
    origins = [normal(each) for each in config.origin]
    sockets = bind(config)
    if not (config.origin or config.allow_fetch or any(root.is_dir() for root in roots(settings))):
        raise BadArgument("--store", str(settings.home), "holds no datasets", "give another, or an --origin")
    url = f"{config.scheme}://{address(sockets[0])}"
    clients = config.allow_fetch or not all(each.startswith(OWN) for each in origins)
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    gc.disable()  # what is loaded stays: looking through it again and again made a tenth of the start
    try:
        if config.workers > 1:
            return _run_several(config, settings, tokens, sockets, lambda: started(url), clients)
        load(clients=clients)
        return _serve(config, settings, tokens, sockets[0], lambda: started(url), exposures(config))
    finally:
        gc.enable()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def _run_several(
    config: ServeConfig,
    settings: Settings,
    tokens: Tokens,
    sockets: Sequence[socket.socket],
    started: Callable[[], None],
    clients: bool,
) -> int:
    folder = tempfile.mkdtemp(prefix="datahub-serve-")
    os.environ[FOLDER] = folder  # before prometheus-client is imported
    try:
        load(clients=clients)
        return _Parent(config, settings, tokens, sockets).run(started)
    finally:
        del os.environ[FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


def bind(config: ServeConfig) -> list[socket.socket]:
    """A listening socket for every process. Raises `BadArgument` where the address cannot be had."""
    found: list[socket.socket] = []
    try:
        facts = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        family, where = facts[0], facts[4]
        for _ in range(config.workers):
            each = socket.socket(family, socket.SOCK_STREAM)
            found.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Of each connection: the kernel ends one whose client takes nothing, whatever it is that is sent.
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * STALL))
            if config.workers > 1:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(where)
            where = each.getsockname()  # the port that 0 stood for is every process's
            each.listen(BACKLOG)
            each.setblocking(False)
    except OSError as error:
        for each in found:
            each.close()
        reason = error.strerror or str(error)
        raise BadArgument("--host/--port", f"{config.host}:{config.port}", f"cannot be had: {reason}") from error
    return found


def address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _serve(
    config: ServeConfig,
    settings: Settings,
    tokens: Tokens,
    listening: socket.socket,
    ready: Callable[[], None],
    notes: Sequence[Note] = (),
) -> int:
    from datahub.serve.log import Lines
    from datahub.serve.serving import serve
    from datahub.serve.transport import tls

    tls(config)  # what is wrong with it is told before anything starts
    lines = Lines(config.access_log)
    for each in notes:
        lines.listener(each)

    sys.setswitchinterval(SWITCH)

    def begun() -> None:
        gc.freeze()  # modules and routes stay: looking through them again and again held requests up
        gc.enable()
        ready()

    try:
        return asyncio.run(serve(config, settings, tokens, listening, lines, ready=begun))
    finally:
        lines.close()


class _Parent:
    """Keeps one process a socket alive."""

    def __init__(
        self, config: ServeConfig, settings: Settings, tokens: Tokens, sockets: Sequence[socket.socket]
    ) -> None:
        self._config, self._settings, self._tokens, self._sockets = config, settings, tokens, sockets
        self._workers: dict[int, _Worker] = {}
        self._alive, self._mine = os.pipe()
        """A pipe whose other end every child sees closed when its parent dies."""

    def run(self, started: Callable[[], None]) -> int:
        from datahub.serve.log import Lines
        from datahub.serve.transport import tls

        tls(self._config)
        lines = Lines(self._config.access_log)  # one that cannot be written is told now
        for each in exposures(self._config):
            lines.listener(each)
        lines.close()
        watched = {signal.SIGCHLD, signal.SIGHUP, *ENDING}
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        try:
            for number in range(len(self._sockets)):
                self._start(_Worker(number, time.monotonic()))
            started()
            while (number := signal.sigwait(watched)) not in ENDING:
                if number == signal.SIGCHLD:
                    self._again()
                else:
                    self._read_again()
            return self._end(number)
        finally:
            self._kill()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)

    def _start(self, worker: _Worker) -> None:
        parent, pid = os.getpid(), os.fork()
        if pid:
            worker.since = time.monotonic()
            self._workers[pid] = worker
            return
        code = 1
        try:
            os.close(self._mine)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and the parent passes it on
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGINT})  # the rest once heard
            code = self._child(worker.number)
        except Exception as error:  # noqa: BLE001 - nobody else would tell it
            _tell(worker.number, error)
        finally:
            if os.getppid() != parent:  # which was killed, and cannot do it any more
                shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
            os._exit(code)

    def _child(self, number: int) -> int:
        from datahub.serve.orphan import end_with

        end_with(self._alive)
        for each in (*self._sockets[:number], *self._sockets[number + 1 :]):
            each.close()
        return _serve(self._config, self._settings, self._tokens, self._sockets[number], lambda: None)

    def _again(self) -> None:
        """Start those that died again."""
        for pid, worker in self._ended():
            _forget_metrics(pid)
            worker.quick = worker.quick + 1 if time.monotonic() - worker.since < SOON else 0
            if worker.quick >= OFTEN:
                raise WorkerDied("serving", f"process {worker.number} ended {OFTEN} times as soon as it was started")
            self._start(worker)

    def _read_again(self) -> None:
        """What SIGHUP asks for: here for processes that are started later, and in each that is there."""
        with suppress(BadArgument):  # they tell it
            self._tokens = tokens_of(self._config)
        for pid in self._workers:
            os.kill(pid, signal.SIGHUP)

    def _ended(self) -> list[tuple[int, _Worker]]:
        found = []
        while self._workers:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid in self._workers:
                found.append((pid, self._workers.pop(pid)))
        return found

    def _end(self, number: int) -> int:
        """Tell all to end, and wait for them; 0 if every one answered what it had begun. A second signal is the end at
        once."""
        for each in self._sockets:  # else who connects now would wait, and not turn to another server
            each.close()
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        deadline, whole = time.monotonic() + self._config.drain + PATIENCE, True
        while self._workers and (left := deadline - time.monotonic()) > 0:
            for pid in list(self._workers):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del self._workers[pid]
                    whole = whole and status == 0
            if self._workers:
                told = signal.sigtimedwait({signal.SIGCHLD, *ENDING}, min(left, 1.0))
                if told is not None and told.si_signo in ENDING:
                    break
        return 0 if whole and not self._workers else 128 + number

    def _kill(self) -> None:
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._workers.clear()


def _tell(number: int, error: Exception) -> None:
    from datahub.serve.log import STDERR, Lines

    lines = Lines(STDERR)
    text = error.message if isinstance(error, DatahubError) else "".join(traceback.format_exception(error))
    lines.listener(Note("serve", f"process {number} ends: {text}", warning=True))
    lines.close()


def _forget_metrics(pid: int) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]
