"""What a worker process is given once: everything to make batches but which ones, and the caller's main module."""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import spawn
from typing import Any

from datahub.core.errors import BadArgument
from datahub.loader.recipe import Recipe
from datahub.loader.residency_files import Mapped
from datahub.loader.schedule import Plan
from datahub.store.dataset import Split
from datahub.stream.source import ShardSource

_MAIN = b"__main__"
_MAINS = ("init_main_from_name", "init_main_from_path")
HINT = 'use what a module defines, or workers="thread"'


@dataclass(frozen=True)
class Kit:
    """``quarantine``: damaged samples are set aside, and told of with their batch."""

    split: Split
    source: ShardSource
    recipe: Recipe
    plan: Plan
    seed: int
    quarantine: bool
    resident: Mapped | None
    workers: int


def packed(kit: Kit) -> bytes:
    """``kit`` for other processes. Raises `BadArgument` naming the argument that cannot be sent to one."""
    for name in ("transform", "map", "batch_transform", "collate"):
        _check(name, getattr(kit.recipe, name))
    body = pickle.dumps(kit, pickle.HIGHEST_PROTOCOL)
    return pickle.dumps((_preparation(needs_main=_MAIN in body), pickle.dumps(kit.recipe), body))


def foresee(data: bytes) -> None:
    """Import what a kit's callables need, in the process that workers are forked from.

    What goes wrong goes wrong again in a worker, which can tell of it.
    """
    with suppress(Exception):
        preparation, recipe, _ = pickle.loads(data)  # noqa: S301 - written by the process that started this one
        spawn.prepare(preparation)
        pickle.loads(recipe)  # noqa: S301


def unpacked(data: bytes) -> Kit:
    preparation, _, body = pickle.loads(data)  # noqa: S301 - as above
    spawn.prepare(preparation)
    kit: Kit = pickle.loads(body)  # noqa: S301
    return kit


def _check(name: str, value: Any) -> None:
    try:
        body = pickle.dumps(value)
    except Exception as error:
        reason = f"cannot be sent to a process: {str(error) or type(error).__name__}"
        raise BadArgument(name, value, reason, HINT) from error
    if _MAIN in body and not _main_has_a_file():
        reason = "is defined in a session, which another process cannot import"
        raise BadArgument(name, value, reason, HINT)


def _main_has_a_file() -> bool:
    main = sys.modules["__main__"]
    return getattr(main, "__spec__", None) is not None or getattr(main, "__file__", None) is not None


def _preparation(*, needs_main: bool) -> dict[str, Any]:
    """As `multiprocessing` prepares a process. The caller's script is imported only where something of it is needed."""
    found: dict[str, Any] = spawn.get_preparation_data("datahub-loader")
    left_out = {"authkey", "start_method"} if needs_main else {"authkey", "start_method", *_MAINS}
    return {name: value for name, value in found.items() if name not in left_out}
