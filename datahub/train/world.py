"""The processes of a training job: one here, or as many as ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from datahub.core.errors import BadArgument
from datahub.loader.topology import Topology, resolve_topology

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others."""


@dataclass(frozen=True, slots=True)
class World:
    """``topology`` says which rank this is; ``device`` is the rank's own."""

    topology: Topology
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.topology.rank == 0

    @property
    def size(self) -> int:
        return self.topology.world_size

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of ``values`` (float64) over all ranks."""
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def alike(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every rank the first one's: statistics of normalisation differ between ranks."""
        if self.size > 1:
            for each in tensors:
                dist.broadcast(each, 0)


@contextmanager
def joined(device: str | None, environ: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Join the process group that RANK and WORLD_SIZE tell of, and leave it again. Raises `BadArgument`."""
    topology = resolve_topology(None, environ)
    here = _device(device, int(environ.get("LOCAL_RANK", "0") or 0))
    ours = topology.world_size > 1 and not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if here.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(topology, here)
    finally:
        if ours:
            dist.destroy_process_group()


def _device(wanted: str | None, local: int) -> torch.device:
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise BadArgument("device", wanted, "is not a device", "write cpu, cuda or cuda:0") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise BadArgument("device", wanted, "no CUDA device is here", "use cpu")
        device = torch.device("cuda", local if device.index is None else device.index)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise BadArgument("device", wanted, "training runs on cpu and cuda only")
    return device
