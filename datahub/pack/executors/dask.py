"""Shard tasks on a Dask cluster (extra ``dask``). A worker that dies is replaced, and its task run again, by Dask."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from datahub.core.errors import DatahubError, ExecutorUnreachable, MissingExtra, WorkerDied

P = ParamSpec("P")
T = TypeVar("T")

PORT = 8786
PATIENCE = 20.0
"""Seconds to wait for a scheduler."""
GONE = 60.0
"""Seconds without a scheduler after which nothing is waited for any longer."""


class DaskExecutor(Executor):
    """Futures of this process that follow Dask's."""

    def __init__(self, address: str, jobs: int) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingExtra("dask", "the Dask executor") from error
        for name in ("distributed", "distributed.worker", "distributed.scheduler", "distributed.nanny"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters comes back as exceptions
        dask: Any = distributed
        self._cluster: Any = None
        self._lock = threading.Lock()
        self._waiting: dict[Any, Future[Any]] = {}
        self._sources: dict[int, tuple[Any, Any]] = {}
        if not address:
            self._cluster = dask.LocalCluster(
                n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None
            )
        url = self._cluster.scheduler_address if self._cluster else f"tcp://{_with_port(address)}"
        try:
            self._client: Any = dask.Client(url, timeout=PATIENCE, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ExecutorUnreachable(f"dask://{address}", str(error) or "no scheduler there") from error
        self._watch = threading.Event()
        self._watcher = threading.Thread(target=self._watching, daemon=True)
        self._watcher.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        sent = [self._sent(each) for each in args]
        # pure=False: equal tasks of two runs are two tasks, and finding that out would hash the source each time.
        remote = self._client.submit(fn, *sent, pure=False, retries=0, **kwargs)
        with self._lock:
            self._waiting[remote.key] = future
        remote.add_done_callback(lambda found: self._done(found, future))
        return future

    def _sent(self, value: Any) -> Any:
        """Large arguments go to the cluster once, not with every task."""
        if not hasattr(value, "estimate"):  # a source; tasks are small
            return value
        if id(value) not in self._sources:
            self._sources[id(value)] = value, self._client.scatter(value, broadcast=False, hash=False)
        return self._sources[id(value)][1]

    def _done(self, remote: Any, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.pop(remote.key, None)
        if future.done():
            return
        try:
            if remote.status == "finished":
                future.set_result(remote.result(timeout=PATIENCE))
            elif remote.status == "error":
                future.set_exception(_translated(remote.exception(timeout=PATIENCE)))
            else:
                future.set_exception(WorkerDied("packing", f"Dask gave its task up ({remote.status})"))
        except Exception as error:  # noqa: BLE001 - whatever Dask raises must end the wait for this future
            future.set_exception(_translated(error))

    def _watching(self) -> None:
        """End every wait when the scheduler has been gone for good: Dask itself would go on trying for ever."""
        lost = 0.0
        while not self._watch.wait(1.0):
            status = getattr(self._client, "status", "closed")
            lost = 0.0 if status == "running" else lost + 1.0
            if status == "closed" or lost > GONE:
                self._end("the scheduler is gone")
                return

    def _end(self, cause: str) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
        for future in waiting:
            if not future.done():
                future.set_exception(WorkerDied("packing", cause))

    def abort(self) -> None:
        """Cancel what has not begun and let go of the cluster."""
        self._end("it was stopped")
        self._close()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the seam's
        self._close()

    def _close(self) -> None:
        self._watch.set()
        with suppress(Exception):
            self._client.close(timeout=5)
        if self._cluster is not None:
            with suppress(Exception):
                self._cluster.close(timeout=10)


def _with_port(address: str) -> str:
    return address if ":" in address else f"{address}:{PORT}"


def _translated(error: BaseException | None) -> BaseException:
    """Dask's own exceptions as datahub's."""
    if isinstance(error, DatahubError | OSError):
        return error
    name = type(error).__name__
    if name in ("KilledWorker", "CommClosedError", "CancelledError", "FutureCancelledError", "TimeoutError"):
        return WorkerDied("packing", f"Dask says {name}: {error}")
    return error or WorkerDied("packing", "Dask gave no reason")
