"""Where shard tasks run: in this process, or on a pool of processes. `concurrent.futures.Executor` is the seam."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import popen_spawn_posix, spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import FunctionType, SimpleNamespace
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_PR_SET_PDEATHSIG = 1


class InProcess(Executor):
    """Runs each task when it is submitted, in the calling thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a future carries whatever its task raised
            future.set_exception(error)
        return future


def make(jobs: int) -> Executor:
    """An executor with ``jobs`` workers. Workers are spawned: forking a process that has threads is not safe."""
    if jobs <= 1:
        return InProcess()
    return ProcessPoolExecutor(jobs, mp_context=_Context(), initializer=_prepare, initargs=(os.getpid(),))


def _without_main(name: str) -> dict[str, Any]:
    """What multiprocessing tells a new process, less the main module to import."""
    told = spawn.get_preparation_data(name)
    return {key: value for key, value in told.items() if not key.startswith("init_main")}


_SPAWN = SimpleNamespace(**(vars(spawn) | {"get_preparation_data": _without_main}))


class _Popen(popen_spawn_posix.Popen):
    """Starts a worker that does not import the caller's script: its tasks are all ours, and a script without
    ``if __name__ == "__main__"`` would begin to pack in every worker, each waiting for the others for ever."""

    # The standard library's own function, seeing another `spawn`: there is no hook, and patching it would reach others.
    _launch = FunctionType(
        vars(popen_spawn_posix.Popen)["_launch"].__code__, vars(popen_spawn_posix) | {"spawn": _SPAWN}
    )


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> popen_spawn_posix.Popen:
        return _Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process


def _prepare(parent: int) -> None:
    """Leave Ctrl-C to the parent, and die with it: a worker whose parent was killed must not go on writing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # not Linux: an orphan ends when it next reports
    if os.getppid() != parent:
        os._exit(1)


def stop(executor: Executor) -> None:
    """End at once, running tasks included; their unfinished shards are written again next time."""
    processes: dict[int, Any] = dict(getattr(executor, "_processes", None) or {})
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes.values():
        process.terminate()
