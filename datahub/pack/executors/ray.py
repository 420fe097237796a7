"""Shard tasks on a Ray cluster (extra ``ray``). A worker that dies is replaced, and its task run again, by Ray."""

from __future__ import annotations

import importlib.util
import logging
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from datahub.core.errors import DatahubError, ExecutorUnreachable, MissingExtra, WorkerDied

P = ParamSpec("P")
T = TypeVar("T")

PORT = 10001
RETRIES = 3
"""How often Ray runs a task again whose worker died."""
POLL = 0.5
"""Seconds between looks at what has finished."""


class RayExecutor(Executor):
    """Futures of this process that follow Ray's object references."""

    def __init__(self, address: str, jobs: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtra("ray", "the Ray executor") from error
        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        self._sources: dict[int, tuple[Any, Any]] = {}
        self._waiting: dict[Any, Future[Any]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        if self._ours:
            self._connect(address, jobs)
        self._run = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
        self._poller = threading.Thread(target=self._polling, daemon=True)
        self._poller.start()

    def _connect(self, address: str, jobs: int) -> None:
        quiet = {"logging_level": logging.CRITICAL, "log_to_driver": False}
        if address and importlib.util.find_spec("grpc") is None:
            raise MissingExtra("ray", "Ray's client")
        try:
            if address:
                where = address if ":" in address else f"{address}:{PORT}"
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what they warn of comes as the exception below
                    self._ray.init(f"ray://{where}", **quiet)
            else:
                self._start(num_cpus=jobs, include_dashboard=False, ignore_reinit_error=True, **quiet)
        except Exception as error:  # Ray raises a bare one where its node does not start in time
            cause = str(error).strip().splitlines()
            raise ExecutorUnreachable(f"ray://{address}", cause[0] if cause else "no cluster there") from error

    def _start(self, **options: Any) -> None:
        """Ray on this machine. It gives a node 30 s, which a machine at work may not have: once more, then."""
        try:
            self._ray.init(**options)
        except Exception:  # noqa: BLE001 - a bare one, as above
            self._ray.shutdown()
            self._ray.init(**options)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        sent = [self._sent(each) for each in args]
        reference = self._run.remote(fn, kwargs, *sent)
        with self._lock:
            self._waiting[reference] = future
        return future

    def _sent(self, value: Any) -> Any:
        """A source goes to the cluster once, not with every task."""
        if not hasattr(value, "estimate"):
            return value
        if id(value) not in self._sources:
            self._sources[id(value)] = value, self._ray.put(value)
        return self._sources[id(value)][1]

    def _polling(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                waiting = list(self._waiting)
            if not waiting:
                self._ended.wait(POLL)
                continue
            try:
                ready, _ = self._ray.wait(waiting, num_returns=1, timeout=POLL)
            except Exception as error:  # noqa: BLE001 - the cluster is gone, whatever it calls that
                self._end(f"Ray is gone: {error}")
                return
            for reference in ready:
                self._done(reference)

    def _done(self, reference: Any) -> None:
        with self._lock:
            future = self._waiting.pop(reference, None)
        if future is None or future.done():
            return
        try:
            found, error = self._ray.get(reference)
        except Exception as failure:  # noqa: BLE001 - whatever Ray raises must end the wait for this future
            future.set_exception(WorkerDied("packing", f"Ray says {type(failure).__name__}: {_first(failure)}"))
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)

    def _end(self, cause: str) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.items()), {}
        for reference, future in waiting:
            with suppress(Exception):
                self._ray.cancel(reference, force=True)
            if not future.done():
                future.set_exception(WorkerDied("packing", cause))

    def abort(self) -> None:
        """Cancel everything and let go of the cluster."""
        self._end("it was stopped")
        self._close()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the seam's
        self._close()

    def _close(self) -> None:
        self._ended.set()
        self._poller.join(timeout=5)
        if self._ours:
            with suppress(Exception):
                self._ray.shutdown()


def _call(fn: Callable[..., Any], kwargs: dict[str, Any], *args: Any) -> tuple[Any, BaseException | None]:
    """(result, error): an exception as a value stays the exception it was; Ray would wrap it."""
    try:
        return fn(*args, **kwargs), None
    except (DatahubError, OSError) as error:
        return None, error


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
