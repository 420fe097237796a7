"""Worker processes beside worker threads: random-resized-crop 224 of JPEGs, uint8 batches of 64, and a slow callable.

    python tests/benchmarks/bench_processes.py --images DIR [--repeat 4] [--workers 2] [--rounds 3] [--work DIR]

DIR's JPEGs are packed ``--repeat`` times. Every run has a process of its own; threads and processes alternate, and the
medians are printed with their ratio. ``first_s`` is from the loop's begin to its first batch, the start of the worker
processes included; ``img_per_s`` is of one epoch from the second batch on; ``pss_mib`` is the memory of the process and
all below it, shared pages divided among those that share them, in the middle of the epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BATCH, SIZE = 64, 224


def pack(images: Path, work: Path, repeat: int) -> None:
    from tests.benchmarks._ilsvrc import distinct

    folder = work / "folder"
    if folder.exists():
        return
    for path in sorted(images.rglob("*.[jJ][pP]*[gG]")):
        for i in range(repeat):
            to = folder / path.name.partition("_")[0] / f"{path.stem}-{i}.jpg"
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(distinct(path.read_bytes(), i))
    environment = {**os.environ, "DATAHUB_HOME": str(work / "home")}
    command = ["pack", "-q", f"imagefolder:{folder}", "processbench@1/published", "--stats", "none"]
    subprocess.run([sys.executable, "-m", "datahub", *command], check=True, cwd=ROOT, env=environment)


def pss() -> float:
    """MiB of this process and all below it."""
    tree, found = {os.getpid()}, 0
    for _ in range(4):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent in tree:
                tree.add(int(stat.parent.name))
    for pid in tree:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        found += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return found / 1024


def laborious(image: Any, *, rounds: int) -> Any:
    """A callable that holds the interpreter, as much of people's own code does."""
    from torchvision.transforms.v2 import functional as F

    total = 0
    for number in range(rounds):
        total += number * number
    return F.resize(image, [SIZE, SIZE], antialias=True)


def run(kind: str, case: str, work: Path, workers: int) -> dict[str, Any]:
    import datahub
    from datahub import transforms
    from datahub.core.settings import Settings

    framing = transforms.Compose([transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()])
    transform: Any = framing if case == "crop" else partial(laborious, rounds=100_000)
    before = time.perf_counter()
    loader = datahub.StreamingLoader(
        "processbench/published",
        "train",
        batch_size=BATCH,
        shuffle=True,
        transform=transform,
        num_workers=workers,
        workers=kind,  # type: ignore[arg-type]
        prefetch=max(2, workers),
        settings=Settings(home=work / "home"),
    )
    began = time.perf_counter()
    memory, images, first = 0.0, 0, 0.0
    middle = len(loader) // 2
    for step, batch in enumerate(loader):
        if not step:
            first = time.perf_counter()
            continue
        images += len(batch["image"])
        if step == middle:
            paused = time.perf_counter()
            memory = pss()
            first += time.perf_counter() - paused
    pace = images / (time.perf_counter() - first)
    made = began - before
    loader.close()
    return {"first_s": first - began, "made_s": made, "img_per_s": pace, "pss_mib": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--cases", nargs="+", default=["crop", "callable"])
    parser.add_argument("--only-pack", action="store_true")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        if options.run:
            print(json.dumps(run(*options.run, work, options.workers)))
            return
        pack(options.images, work, options.repeat)
        for case in () if options.only_pack else options.cases:
            rows: dict[str, list[dict[str, float]]] = {"thread": [], "process": []}
            for _ in range(options.rounds):
                for kind, found in rows.items():
                    own = ["--images", str(options.images), "--work", str(work), "--workers", str(options.workers)]
                    out = subprocess.run(
                        [sys.executable, __file__, *own, "--run", kind, case], stdout=subprocess.PIPE, check=True
                    )
                    found.append(json.loads(out.stdout))
            median = {
                kind: {name: round(statistics.median(row[name] for row in found), 2) for name in found[0]}
                for kind, found in rows.items()
            }
            ratio = median["process"]["img_per_s"] / median["thread"]["img_per_s"]
            print(json.dumps({"case": case, "workers": options.workers, **median, "process/thread": round(ratio, 3)}))


if __name__ == "__main__":
    main()
