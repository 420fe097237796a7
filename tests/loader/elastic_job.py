"""A training job as torchrun starts it: every rank writes down the batches it saw. See test_elastic.py.

Arguments: the store, a folder for what ranks write, and the tasks as JSON, done one after another by the same ranks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.utils.data import DataLoader

from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.loader.torch_dataset import StreamingDataset
from datahub.tensor.transforms import BatchTransform

BATCH = 12


class Stamp(BatchTransform):
    """Images with a draw of their own added: what shows that draws, too, are those of the uninterrupted run."""

    def __call__(self, images, dtype=None, draws=None):
        return images.float() + torch.from_numpy(draws.uniform("stamp").astype("float32"))[:, :, None, None]


def arguments(home: Path, **options: Any) -> dict[str, Any]:
    fixed = {"global_batch_size": BATCH, "shuffle": True, "seed": 5, "transform": Stamp(), "timeout": 60}
    return {"ref": "tiny", "settings": Settings(home), **fixed, **options}


def main(home: Path, out: Path, tasks: list[dict[str, Any]]) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for task in tasks:
        seen: list[Any] = []
        if task.get("processes"):
            source: Any = StreamingDataset(**arguments(home))
            batches: Iterable[Any] = DataLoader(source, batch_size=None, num_workers=task["processes"], timeout=60)
        else:
            batches = source = StreamingLoader(**arguments(home, num_workers=task.get("threads", 1)))
        if "state" in task:
            source.load_state_dict(torch.load(task["state"], weights_only=True))
        if "checkpoint" in task:
            dcp.load({"loader": source}, checkpoint_id=task["checkpoint"])
        for batch in batches:
            seen.append((dict(batch), dict(batch.state)))
            torch.save(seen, out / f"{task['name']}-{rank}.pt")
            if len(seen) == task.get("save_after"):
                dcp.save({"loader": source}, checkpoint_id=out / "checkpoint")
            if rank == 1 and len(seen) == task.get("kill_after"):
                os.kill(os.getpid(), signal.SIGKILL)
            dist.barrier()
        source.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
