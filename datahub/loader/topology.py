"""Which process of how many this is: a frozen fact, handed to whoever needs it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datahub.core.errors import BadArgument


@dataclass(frozen=True, slots=True)
class Topology:
    """Rank ``rank`` of ``world_size``, on node ``node`` of ``nodes``. Raises `BadArgument`."""

    rank: int = 0
    world_size: int = 1
    node: int = 0
    nodes: int = 1

    def __post_init__(self) -> None:
        for name, number, names, count in (
            ("rank", self.rank, "world_size", self.world_size),
            ("node", self.node, "nodes", self.nodes),
        ):
            if count < 1:
                raise BadArgument(names, count, "must be positive")
            if not 0 <= number < count:
                raise BadArgument(name, number, f"must lie in [0, {names}={count})")

    @classmethod
    def from_mesh(cls, mesh: Any) -> Topology:
        """From a one-dimensional ``torch.distributed`` device mesh, the data-parallel one."""
        if mesh.ndim != 1:
            raise BadArgument("mesh", mesh, f"has {mesh.ndim} dimensions", 'pass the data-parallel one, mesh["dp"]')
        return cls(mesh.get_local_rank(), mesh.size())


def resolve_topology(given: Topology | None, environ: Mapping[str, str]) -> Topology:
    """The topology: the argument, then torch.distributed where it is initialised, then RANK and WORLD_SIZE, else one.

    Several Slurm tasks with none of these are an error: each would take itself for rank 0 of 1.
    """
    if given is not None:
        return given
    node, nodes = _number(environ, "GROUP_RANK"), _number(environ, "GROUP_WORLD_SIZE")
    where = (node, nodes) if node is not None and nodes is not None and node < nodes else (0, 1)
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Topology(distributed.get_rank(), distributed.get_world_size(), *where)
    rank, world_size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    if rank is not None and world_size is not None:
        return Topology(rank, world_size, *where)
    if rank is not None or world_size is not None:
        name, missing = ("RANK", "WORLD_SIZE") if world_size is None else ("WORLD_SIZE", "RANK")
        raise BadArgument(name, environ[name], f"{missing} is not set", "set both, or pass topology=")
    tasks = _number(environ, "SLURM_NTASKS")
    if tasks is not None and tasks > 1:
        reason = "several Slurm tasks, and nothing says which rank this is"
        hint = (
            "pass topology=datahub.Topology(rank, world_size), set RANK and WORLD_SIZE, or initialise torch.distributed"
        )
        raise BadArgument("SLURM_NTASKS", tasks, reason, hint)
    return Topology()


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise BadArgument(name, text, "is not a number") from None
