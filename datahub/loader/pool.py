"""Worker threads that live as long as one iteration and never outlive it by more than the task they are in."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

Task = Callable[[], None]
EXIT_PATIENCE = 5.0
"""Seconds that the interpreter's exit waits for a thread that is still in a task."""


class Pool:
    """Runs tasks in the order submitted. Tasks report their own results and errors and must not raise."""

    def __init__(self, workers: int, name: str) -> None:
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._tasks,), name=f"{name}-{i}", daemon=True) for i in range(workers)
        ]
        # Also at interpreter exit: a daemon thread inside C++ code while the interpreter goes away can crash it.
        self._finalizer = weakref.finalize(self, _stop, self._tasks, self._threads, EXIT_PATIENCE)
        for thread in self._threads:
            thread.start()

    def submit(self, task: Task) -> None:
        self._tasks.put(task)

    def close(self, patience: float) -> None:
        """Drop what has not begun, and wait at most ``patience`` seconds for what has."""
        if self._finalizer.detach():
            _stop(self._tasks, self._threads, patience)


def _work(tasks: SimpleQueue[Task | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # a batch must not live until the next task comes


def _stop(tasks: SimpleQueue[Task | None], threads: list[threading.Thread], patience: float) -> None:
    with suppress(Empty):
        while True:
            tasks.get_nowait()
    for _ in threads:
        tasks.put(None)
    deadline = time.monotonic() + patience
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
