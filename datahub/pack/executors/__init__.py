"""Where shard tasks run, by name. `concurrent.futures.Executor` is the seam.

None, local          processes of this machine
dask://HOST[:PORT]   a Dask cluster by its scheduler; dask:// alone starts one here
ray://HOST[:PORT]    a Ray cluster by its client port; ray:// alone is Ray on this machine
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Protocol, runtime_checkable

from datahub.core.errors import BadArgument
from datahub.pack import executor

HINT = "use local, dask://HOST or ray://HOST"


@runtime_checkable
class Remote(Protocol):
    """An executor that can be told to end at once."""

    def abort(self) -> None: ...


def make(where: str | None, jobs: int) -> Executor:
    """The executor that ``where`` names, with ``jobs`` workers where it is started here.

    Raises `BadArgument`, `MissingExtra`, and `ExecutorUnreachable` where nobody answers.
    """
    scheme, address = parse(where)
    if scheme == "dask":
        from datahub.pack.executors.dask import DaskExecutor

        return DaskExecutor(address, jobs)
    if scheme == "ray":
        from datahub.pack.executors.ray import RayExecutor

        return RayExecutor(address, jobs)
    return executor.make(jobs)


def parse(where: str | None) -> tuple[str, str]:
    """(``local``, ``dask`` or ``ray``; address). Raises `BadArgument`."""
    if where in (None, "", "local"):
        return "local", ""
    scheme, colon, address = str(where).partition("://")
    if not colon or scheme not in ("dask", "ray") or any(each in address for each in "/@ "):
        raise BadArgument("executor", where, "is not an executor", HINT)
    return scheme, address


def stop(pool: Executor) -> None:
    """End at once, running tasks included; their unfinished shards are written again next time."""
    if isinstance(pool, Remote):
        pool.abort()
    else:
        executor.stop(pool)
