"""A few threads that fetch blocks: what a batch waits for before what is fetched ahead, each block by one of them."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from datahub.store.cache.block import Data

IDLE = 2.0
"""Seconds after which a thread without work ends."""
Work = Callable[[bool], "Data | None"]
"""Called with whether somebody waits for the result."""


@dataclass
class _Task:
    key: str
    work: Work
    future: Future[Data | None] = field(default_factory=Future)
    urgent: bool = False
    begun: bool = False


class _State:
    """What the threads share; they do not hold the `Fetcher`, so that it ends when nobody else does."""

    def __init__(self) -> None:
        self.ready = threading.Condition()
        self.tasks: dict[str, _Task] = {}
        self.queue: list[tuple[int, int, _Task]] = []
        self.threads = 0
        self.waiting = 0
        self.closed = False


class Fetcher:
    """At most ``threads`` at once, which exist while there is work. Usable after fork: the child starts its own."""

    def __init__(self, threads: int) -> None:
        self._most, self._number = threads, itertools.count()
        self._begin()

    def _begin(self) -> None:
        self._process, self._state = os.getpid(), _State()
        self._end = weakref.finalize(self, _stop, self._state)

    def ask(self, key: str, work: Work, *, urgent: bool) -> Future[Data | None]:
        """The result of ``work``, or of the task under way for the same key. Urgent ones go first."""
        if self._process != os.getpid():
            self._end.detach()
            self._begin()
        state = self._state
        with state.ready:
            state.closed = False
            task = state.tasks.get(key)
            if task is None:
                task = state.tasks[key] = _Task(key, work, urgent=urgent)
                self._push(state, task, urgent)
            elif urgent:
                self._hurry(state, task)
            return task.future

    def hurry(self, key: str) -> None:
        """Somebody waits for a task now, if it is still to be done."""
        state = self._state
        with state.ready:
            if key in state.tasks:
                self._hurry(state, state.tasks[key])

    def _hurry(self, state: _State, task: _Task) -> None:
        if not task.urgent and not task.begun:
            self._push(state, task, True)
        task.urgent = True

    def _push(self, state: _State, task: _Task, urgent: bool) -> None:
        heapq.heappush(state.queue, (0 if urgent else 1, next(self._number), task))
        if state.waiting:
            state.ready.notify()
        if len(state.queue) > state.waiting and state.threads < self._most:
            state.threads += 1
            threading.Thread(target=_run, args=(state,), name="datahub-fetch", daemon=True).start()

    def under_way(self, key: str) -> Future[Data | None] | None:
        """The task for a key, if there is one."""
        with self._state.ready:
            task = self._state.tasks.get(key)
            return None if task is None else task.future

    def drop(self) -> None:
        """Forget what has not begun and nobody waits for."""
        if self._process == os.getpid():
            with self._state.ready:
                _forget(self._state, lambda task: not task.urgent)

    def close(self) -> None:
        """End the threads once they are done with what they are at; a later `ask` starts them again."""
        if self._process == os.getpid():
            _stop(self._state)


def _forget(state: _State, which: Callable[[_Task], bool]) -> None:
    dropped = [task for task in state.tasks.values() if not task.begun and which(task)]
    for task in dropped:
        del state.tasks[task.key]
        task.begun = True  # its places in the queue are passed over
        task.future.cancel()


def _stop(state: _State) -> None:
    with state.ready:
        state.closed = True
        _forget(state, bool)
        state.ready.notify_all()


def _run(state: _State) -> None:
    while (task := _next(state)) is not None:
        try:
            result = task.work(task.urgent)
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            outcome: BaseException | None = error
        else:
            outcome = None
        with state.ready:
            state.tasks.pop(task.key, None)
        if outcome is not None:
            task.future.set_exception(outcome)
        else:
            task.future.set_result(result)
        del task, outcome
        result = None


def _next(state: _State) -> _Task | None:
    """The next task, None when there is none for a while; the thread is off the count then."""
    with state.ready:
        while True:
            while state.queue:
                task = heapq.heappop(state.queue)[2]
                if not task.begun:
                    task.begun = True
                    return task
            if state.closed:
                break
            state.waiting += 1
            told = state.ready.wait(IDLE)
            state.waiting -= 1
            if not told and not state.queue:
                break
        state.threads -= 1
        return None
