"""Encoded images from local shards, none decoded: samples a second and memory, beside webdataset and LitData.

    python tests/benchmarks/bench_bytes.py --images DIR [--samples 8192] [--rounds 3] [--peer-python PYTHON]

Packs ``samples`` images, those of DIR over and over, and gives ours and webdataset the same shards; LitData gets a copy
optimised by itself. All shuffle, all have two workers, and the consumer takes a CRC-32 of every sample. A round runs
each loader in a process of its own, one after the other: the first epoch warms up, the next ones are timed, and the XOR
of an epoch's checksums must be that of the files. Memory is the largest sum of PSS over the tree of processes, of two
looks a second; ``torch`` is a process that has imported torch and does nothing, the floor under all of them.
``--peer-python``: an interpreter that has the peers, where this one has not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
Batches = Iterable[tuple[list[bytes], Any]]


def ours(o: argparse.Namespace) -> Callable[[], Batches]:
    import datahub
    from datahub.core.settings import Settings

    loader = datahub.StreamingLoader(
        "streamed@1", batch_size=o.batch, shuffle=True, fields=("encoded", "label"), num_workers=o.workers,
        settings=Settings(home=Path(o.work, "home")),
    )  # fmt: skip
    return lambda: loader


def webdataset(o: argparse.Namespace) -> Callable[[], Batches]:
    import webdataset as wds

    shards = sorted(str(path) for path in Path(o.work, "home").rglob("*.tar"))
    dataset = wds.WebDataset(shards, shardshuffle=100, nodesplitter=None)
    if o.peer_shuffle:
        dataset = dataset.shuffle(o.peer_shuffle)
    dataset = dataset.to_tuple("jpg", "cls").batched(o.batch, collation_fn=columns)
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=o.workers, persistent_workers=True)
    return lambda: loader


def litdata(o: argparse.Namespace) -> Callable[[], Batches]:
    import litdata as ld

    folder = Path(o.work, "litdata")
    if not folder.exists():
        ld.optimize(fn=lit_sample, inputs=items(o), output_dir=str(folder), chunk_bytes="64MB", num_workers=1)
    dataset = ld.StreamingDataset(str(folder), shuffle=True)
    loader = ld.StreamingDataLoader(
        dataset, batch_size=o.batch, num_workers=o.workers, collate_fn=columns, persistent_workers=True
    )
    return lambda: loader


def floor(o: argparse.Namespace) -> Callable[[], Batches]:
    """Torch imported, for as long as memory needs to be seen."""
    import torch

    torch.zeros(1)
    time.sleep(2)
    print(json.dumps({"samples_s": 0}))
    raise SystemExit


LOADERS = {"torch": floor, "datahub": ours, "webdataset": webdataset, "litdata": litdata}


def items(o: argparse.Namespace) -> list[tuple[str, int, int, int]]:
    """(shard, offset, size, label) of every packed image, read without our package: the peers' Python may lack it."""
    import numpy as np

    rows = np.load(next(Path(o.work, "home").rglob("locate-train.npy")))
    shards = sorted(str(path) for path in Path(o.work, "home").rglob("*.tar"))
    return [(shards[row["shard"]], int(row["offset"]), int(row["size"]), int(row["label"])) for row in rows]


def lit_sample(item: tuple[str, int, int, int]) -> dict[str, Any]:
    return {"jpg": content(item), "cls": item[3]}


def content(item: tuple[str, int, int, int]) -> bytes:
    with Path(item[0]).open("rb") as file:
        file.seek(item[1])
        return file.read(item[2])


def columns(samples: list[Any]) -> tuple[list[bytes], list[Any]]:
    if isinstance(samples[0], dict):
        return [each["jpg"] for each in samples], [each["cls"] for each in samples]
    return [each[0] for each in samples], [each[1] for each in samples]


def measure(o: argparse.Namespace) -> None:
    """Run epochs of one loader, and say how fast the fastest was that came after the first."""
    make = LOADERS[o.child](o)
    rates = []
    for _ in range(o.epochs + 1):
        count = checksum = 0
        began = 0.0
        first = 0
        for images, _labels in make():
            for data in images:
                checksum ^= zlib.crc32(data)
            count += len(images)
            if not began:
                began, first = time.perf_counter(), count
        rates.append((count - first) / (time.perf_counter() - began))
        if (count, checksum) != (o.samples, o.checksum):
            raise SystemExit(f"{o.child}: {count} samples with checksum {checksum:08x}, not {o.checksum:08x}")
    print(json.dumps({"samples_s": round(max(rates[1:]))}), flush=True)


class Memory:
    """The largest PSS of a process and its descendants, in MiB."""

    def __init__(self, pid: int) -> None:
        import psutil

        self.peak, self._root, self._done = 0.0, psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self.peak = max(self.peak, self._now())

    def _now(self) -> float:
        import psutil

        total = 0
        try:
            for process in (self._root, *self._root.children(recursive=True)):
                total += process.memory_full_info().pss
        except psutil.Error:  # one ended while it was looked at
            return 0.0
        return total / 2**20

    def stop(self) -> float:
        self._done.set()
        self._thread.join()
        return self.peak


def run(name: str, o: argparse.Namespace, checksum: int) -> tuple[float, float]:
    """(samples a second, MiB) of one loader in a process of its own."""
    python = o.peer_python if name == "litdata" else sys.executable
    arguments = {
        "images": o.images, "samples": o.samples, "batch": o.batch, "workers": o.workers, "work": o.work,
        "epochs": o.epochs, "peer-shuffle": o.peer_shuffle, "checksum": checksum, "child": name,
    }  # fmt: skip
    command = [python, __file__, *(f"--{key}={value}" for key, value in arguments.items())]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
        memory = Memory(process.pid)
        out, _ = process.communicate()
        peak = memory.stop()
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{name} failed:\n{said.read()[-2000:]}")
    return float(json.loads(out.splitlines()[-1])["samples_s"]), peak


def compare(o: argparse.Namespace) -> None:
    from tests.benchmarks._folders import pack_images

    Path(o.work, "home").mkdir(parents=True, exist_ok=True)
    pack_images(Path(o.work, "home"), Path(o.images), o.samples)
    checksum = 0
    for item in items(o):
        checksum ^= zlib.crc32(content(item))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in o.loader or LOADERS}
    if "litdata" in found:
        run("litdata", o, checksum)  # makes its copy
    for _ in range(o.rounds):
        for name, rounds in found.items():
            rounds.append(run(name, o, checksum))
    median = {name: [statistics.median(each) for each in zip(*rounds, strict=True)] for name, rounds in found.items()}
    for name, rounds in found.items():
        facts = {"samples_s": [round(each[0]) for each in rounds], "pss_mib": [round(each[1]) for each in rounds]}
        print(json.dumps({"loader": name, "cpus": os.cpu_count(), "batch": o.batch, **facts}))
    for name in [name for name in found if name not in ("torch", "datahub")]:
        speed, memory = (mine / theirs for mine, theirs in zip(median["datahub"], median[name], strict=True))
        facts = {"samples_s": round(speed, 2), "pss": round(memory, 2)}
        if "torch" in median:
            base = median["torch"][1]
            facts["pss_above_torch"] = round((median["datahub"][1] - base) / (median[name][1] - base), 2)
        print(json.dumps({"figure": f"datahub against {name}", **facts}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2, help="timed epochs a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-shuffle", type=int, default=1000, help="webdataset's buffer; 0 for none")
    parser.add_argument("--loader", action="append", choices=list(LOADERS))
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--work", help="a folder to keep what is packed in")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--checksum", type=int, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.child:
        measure(o)
        return
    with tempfile.TemporaryDirectory() as folder:
        o.work = o.work or folder
        compare(o)


if __name__ == "__main__":
    main()
