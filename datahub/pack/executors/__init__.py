"""Where shard tasks run, by name: ``local`` processes."""

from __future__ import annotations

from concurrent.futures import Executor

from datahub.core.errors import BadArgument
from datahub.pack import executor


def make(where: str | None, jobs: int) -> Executor:
    """The executor that ``where`` names. Raises `BadArgument`."""
    if where in (None, "local"):
        return executor.make(jobs)
    raise BadArgument("executor", where, "is not an executor", "use local, dask://HOST or ray://HOST")


def stop(pool: Executor) -> None:
    """End at once, running tasks included."""
    executor.stop(pool)
