"""Worker threads that live as long as one iteration and never outlive it by more than the task they are in."""

from __future__ import annotations

import atexit
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

Task = Callable[[], None]
EXIT_PATIENCE = 5.0
"""Seconds that the interpreter's exit waits for threads that are still in a task."""

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Pool:
    """Runs tasks in the order submitted. Tasks report their own results and errors and must not raise."""

    def __init__(self, workers: int, name: str) -> None:
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._tasks,), name=f"{name}-{i}", daemon=True) for i in range(workers)
        ]
        self._closed = False
        _watch_exit()
        _pools.add(self)
        for thread in self._threads:
            _threads.add(thread)
            thread.start()

    def submit(self, task: Task) -> None:
        self._tasks.put(task)

    def close(self, patience: float) -> None:
        """Drop what has not begun, and wait at most ``patience`` seconds for what has."""
        if self._closed:
            return
        self._closed = True
        with suppress(Empty):
            while True:
                self._tasks.get_nowait()
        for _ in self._threads:
            self._tasks.put(None)
        _join(self._threads, patience)


def _work(tasks: SimpleQueue[Task | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # a batch must not live until the next task comes


def _join(threads: Iterable[threading.Thread], patience: float) -> None:
    deadline = time.monotonic() + patience
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


@functools.cache
def _watch_exit() -> None:
    """A daemon thread that is inside C++ code while the interpreter goes away aborts the process: end them first."""
    atexit.register(_at_exit)


def _at_exit() -> None:
    for pool in list(_pools):
        pool.close(patience=0)
    _join(list(_threads), EXIT_PATIENCE)
