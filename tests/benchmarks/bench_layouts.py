"""Reading raw layouts, each beside the standard library's way in the same run, and drawing shapes.

    python tests/benchmarks/bench_layouts.py --data DIR [--runs 5] [--short-side 120]

DIR holds mnist/ and cifar-10/cifar-10-batches-py/. Prints a JSON line each: medians in milliseconds, ratio peer / ours.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from datahub.pack import archives, inflate, unpickle
from datahub.pack.layouts import idx, shapes


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


def beside(name: str, ours: Callable[[], object], peer: Callable[[], object], runs: int) -> None:
    """Run both by turns, so that a slow moment of the machine hits both."""
    pairs = [(timed(ours), timed(peer)) for _ in range(runs)]
    mine, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    print(
        json.dumps(
            {"what": name, "ours_ms": round(mine, 2), "peer_ms": round(theirs, 2), "ratio": round(theirs / mine, 2)}
        )
    )


def read_idx(path: Path) -> np.ndarray:
    with inflate.opened(path) as stream:
        return idx.read_array(stream)


def read_plain(path: Path) -> np.ndarray:
    with gzip.open(path) as handle:
        return np.frombuffer(handle.read(), np.uint8, offset=16).reshape(-1, 28, 28)


def walk_stdlib(path: Path) -> int:
    total = 0
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                total += len(file.read())
    return total


def many_members(path: Path, count: int) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for i in range(count):
            info = tarfile.TarInfo(f"folder/{i:08d}.jpg")
            info.size = 1000
            archive.addfile(info, io.BytesIO(bytes(1000)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--short-side", type=int, default=120)
    given = parser.parse_args()
    images = given.data / "mnist" / "train-images-idx3-ubyte.gz"
    beside(
        "IDX, MNIST train images / gzip + frombuffer", lambda: read_idx(images), lambda: read_plain(images), given.runs
    )
    batch = (given.data / "cifar-10" / "cifar-10-batches-py" / "data_batch_1").read_bytes()
    beside(
        "CIFAR batch, restricted / pickle.loads",
        lambda: unpickle.load(batch, "data_batch_1"),
        lambda: pickle.loads(batch, encoding="bytes"),
        given.runs,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.tar.gz"
        many_members(path, 20_000)
        beside(
            "tar.gz of 20,000 members, read whole / tarfile r|gz",
            lambda: sum(len(member.read()) for member in archives.walk(path)),
            lambda: walk_stdlib(path),
            given.runs,
        )
    source = shapes.open_source({"short_side": given.short_side}, {}, splits={"train": 10_000}, classes=[])
    count = 1_000
    rate = count / timed(lambda: source.read("train", np.arange(count))) * 1e3
    print(json.dumps({"what": "shapes", "short_side": given.short_side, "images_per_second": round(rate)}))


if __name__ == "__main__":
    main()
