"""Packing MNIST's 70,000 images to PNG shards, beside webdataset's ShardWriter with Pillow's PNG.

    python tests/benchmarks/bench_pack.py --idx DIR [--runs 3]

DIR holds the four published files. One process each, reading the IDX files included; ours also hashes, indexes and
fsyncs. Prints a JSON line a run, then the medians and their ratio.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset as wds
from PIL import Image

from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack.fetch import Options, download, pack_files, target

NAMES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def ours(idx: Path, work: Path) -> int:
    settings = Settings(home=work, from_=str(idx.parent if idx.name == "mnist" else idx))
    wanted = target(Ref("mnist"), settings)
    path = pack_files(wanted, download(wanted, settings, Options()), settings, Options(jobs=1))
    return sum(each.stat().st_size for each in path.glob("*.tar"))


def shard_writer(idx: Path, work: Path) -> int:
    for split, (images, labels) in NAMES.items():
        x = np.frombuffer(gzip.decompress((idx / images).read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
        y = np.frombuffer(gzip.decompress((idx / labels).read_bytes()), np.uint8, offset=8)
        with wds.ShardWriter(f"{work}/{split}-%06d.tar", maxcount=10_000, verbose=0) as writer:
            for i in range(len(x)):
                buffer = io.BytesIO()
                Image.fromarray(x[i]).save(buffer, "png")
                writer.write({"__key__": f"{split}-{i:09d}", "png": buffer.getvalue(), "cls": int(y[i])})
    return sum(each.stat().st_size for each in work.glob("*.tar"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idx", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    sides: dict[str, Callable[[Path, Path], int]] = {"datahub": ours, "webdataset ShardWriter": shard_writer}
    times: dict[str, list[float]] = {name: [] for name in sides}
    sizes = {}
    for _ in range(options.runs):
        for name, side in sides.items():
            work = Path(tempfile.mkdtemp())
            began = time.perf_counter()
            sizes[name] = side(options.idx, work)
            times[name].append(time.perf_counter() - began)
            shutil.rmtree(work)
            print(json.dumps({"side": name, "seconds": round(times[name][-1], 2), "bytes": sizes[name]}), flush=True)
    a, b = (statistics.median(each) for each in times.values())
    print(
        json.dumps(
            {
                "ours_s": round(a, 2),
                "peer_s": round(b, 2),
                "speed_ratio": round(b / a, 2),
                "size_ratio": round(sizes["datahub"] / sizes["webdataset ShardWriter"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
