"""Streaming a packed split of small images, beside webdataset's loader on the same shards, alternately in one run.

Both deliver shuffled, normalised float32 batches and int64 labels with two workers. The clock starts once every batch
that was made ahead has been taken.

    python tests/benchmarks/bench_stream.py [--ref mnist] [--rounds 3] [--peer-batches 60]

The dataset must be in the store (``datahub fetch mnist``). Prints one JSON line a measurement, then the ratio.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
import webdataset
from PIL import Image
from torchvision.transforms import v2

import datahub

MEAN, STD = 0.1307, 0.3081


AHEAD = 5
"""Batches taken before the clock starts: both loaders prepare up to four while the first is waited for."""


def rate(batches: Iterable[Any], batch: int, size: int) -> float:
    """Images a second, the form of every batch checked."""
    began, count = 0.0, 0
    for number, (images, labels) in enumerate(batches, 1):
        assert images.shape == (batch, 1, size, size) and images.dtype == torch.float32 and labels.dtype == torch.int64
        if number == AHEAD:
            began = time.perf_counter()
        elif number > AHEAD:
            count += len(images)
    return count / (time.perf_counter() - began)


def one_thread(_: int) -> None:
    torch.set_num_threads(1)


def peer(shards: list[str], batch: int, workers: int) -> Any:
    scale = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN], [STD])])
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=100, nodesplitter=None)
        .shuffle(1000)
        .to_tuple("png", "cls")
        .map_tuple(lambda data: scale(Image.open(io.BytesIO(data))), int)
        .batched(batch, partial=False)
    )
    return webdataset.WebLoader(
        dataset, batch_size=None, num_workers=workers, worker_init_fn=one_thread, persistent_workers=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ref", default="mnist", help="a dataset of gray PNGs of one square shape")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-batches", type=int, default=60, help="batches of the peer a round; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of ours a round")
    o = parser.parse_args()
    split = datahub.open(o.ref)["train"]
    size = split.dataset.record.fields["image"].shape[0]
    ours = datahub.StreamingLoader(
        o.ref,
        batch_size=o.batch,
        shuffle=True,
        drop_last=True,
        transform=datahub.transforms.Normalize([MEAN], [STD]),
        fields=("image", "label"),
        num_workers=o.workers,
    )
    theirs = peer([str(path) for path in split.shards], o.batch, o.workers) if o.peer_batches else None
    rates: dict[str, list[float]] = {"datahub": [], "webdataset": []}
    for _ in range(o.rounds):
        rates["datahub"].append(rate((batch for _ in range(o.epochs) for batch in ours), o.batch, size))
        if theirs is not None:
            rates["webdataset"].append(rate(islice(theirs, o.peer_batches), o.batch, size))
            time.sleep(2)  # its workers go on to fill their queues
    for name, found in rates.items():
        if found:
            facts = {"loader": name, "batch": o.batch, "workers": o.workers}
            print(json.dumps({**facts, "images_per_s": [round(each) for each in found]}))
    if theirs is not None:
        ratio = statistics.median(rates["datahub"]) / statistics.median(rates["webdataset"])
        print(json.dumps({"figure": "streaming, times webdataset", "ratio": round(ratio, 1)}))


if __name__ == "__main__":
    main()
