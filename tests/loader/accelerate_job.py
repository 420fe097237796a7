"""A process of a job under Accelerate: what each way of loading gives it, as a JSON line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate import Accelerator
from torch.utils.data import DataLoader

from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.loader.torch_dataset import StreamingDataset


def main(home: str) -> None:
    accelerator = Accelerator(cpu=True)
    options = {"global_batch_size": 8, "shuffle": True, "settings": Settings(home=Path(home))}
    loader = accelerator.prepare(StreamingLoader("tiny", num_workers=0, **options))
    dataset = StreamingDataset("tiny", **options)
    found = {
        "rank": accelerator.process_index,
        "loader": [batch["index"].tolist() for batch in loader],
        "kept": isinstance(loader, StreamingLoader),
        "dataset": [batch["index"].tolist() for batch in DataLoader(dataset, batch_size=None, num_workers=1)],
    }
    Path(sys.argv[2], f"{accelerator.process_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
