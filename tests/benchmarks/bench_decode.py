"""Random-resized-crop 224 and flip to uint8 batches of 64, two workers, beside torchvision's DataLoader over files.

    python tests/benchmarks/bench_decode.py --images DIR [--repeat 16] [--rounds 3] [--work DIR] [--peers SCRIPT]

`published`, `tiled` and `max256` are packed from an image folder of ``--repeat`` copies of DIR's JPEGs, each with a
comment of its own. Every row runs in a process of its own, in turns; one epoch of a kind of rounds is its rate, counted
from the first batch on. ``--peers`` is a script that takes ``--images --work --repeat --peer NAME`` and prints JSON
lines with ``img_per_s``; ``--peer NAME[=PYTHON]`` names what to run of it. Prints one JSON line a row, then ratios to
the best peer. ``agree`` is the mean absolute difference, in grey levels, between our output and torchvision's
``resized_crop(antialias=True)`` of the same boxes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BATCH, SIZE, WORKERS = 64, 224, 2
VARIANTS = ("published", "tiled", "max256")


def pack(images: Path, work: Path, repeat: int) -> None:
    """The three variants at ``work``/home, unless they stand there."""
    from tests.benchmarks._ilsvrc import distinct

    files = sorted(images.rglob("*.[jJ][pP]*[gG]"))
    folder = work / "folder"
    if not folder.exists():
        for i in range(repeat):
            for path in files:
                to = folder / path.name.partition("_")[0] / f"{path.stem}-{i}.jpg"
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(distinct(path.read_bytes(), i))
    environment = {**os.environ, "DATAHUB_HOME": str(work / "home")}
    for variant in VARIANTS:
        source = f"imagefolder:{folder}" if variant == "published" else "decodebench/published"
        command = ["pack", "-q", source, f"decodebench@1/{variant}", "--stats", "none"]
        subprocess.run([sys.executable, "-m", "datahub", *command], check=True, cwd=ROOT, env=environment)


def run(variant: str, work: Path) -> dict[str, Any]:
    """One epoch after a short one: images/s, CPU seconds a thousand images, peak resident MiB."""
    import torch

    import datahub
    from datahub import transforms
    from datahub.core.settings import Settings

    torch.set_num_threads(1)
    loader = datahub.StreamingLoader(
        f"decodebench@1/{variant}", batch_size=BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, prefetch=4,
        transform=transforms.Compose([transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]),
        fields=("image", "label"), residency="stream", settings=Settings(home=work / "home"),
    )  # fmt: skip
    with loader:
        seen, began, used = -1, 0.0, 0.0
        for image, _ in loader:
            assert image.shape == (BATCH, 3, SIZE, SIZE) and image.dtype == torch.uint8
            if seen < 0:
                seen, began, used = 0, time.perf_counter(), time.process_time()
                continue
            seen += len(image)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        stats = loader.stats()
    return {
        "side": variant, "images_s": round(seen / seconds), "cpu_s_1000": round(1000 * cpu / seen, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "decode_share": round(stats["decode_seconds"] / (seconds * WORKERS), 2),
    }  # fmt: skip


def agree(work: Path, images: int = 96) -> dict[str, float]:
    """Mean absolute difference to torchvision on the same boxes, in grey levels, of each variant."""
    import numpy as np
    import torch
    from torchvision.transforms.v2 import functional as F

    import datahub
    from datahub import transforms
    from datahub.core.settings import Settings
    from datahub.tensor.draws import Draws

    found = {}
    crop = transforms.RandomResizedCrop(SIZE)
    for variant in VARIANTS:
        dataset = datahub.open(f"decodebench@1/{variant}", Settings(home=work / "home"))["train"]
        loader = datahub.StreamingLoader(
            f"decodebench@1/{variant}", batch_size=images, num_workers=0, transform=crop, residency="stream",
            settings=Settings(home=work / "home"),
        )  # fmt: skip
        with loader:
            batch = loader.at(0, 0)
        whole = [dataset[int(i)]["image"] for i in batch["index"]]
        sizes = np.array([each.shape[1:] for each in whole], np.int64)
        boxes = crop.boxes(sizes, Draws(0, 0, np.arange(images, dtype=np.int64))).tolist()
        cropped = [
            F.resized_crop(each, top, left, height, width, [SIZE, SIZE], antialias=True)
            for each, (left, top, width, height) in zip(whole, boxes, strict=True)
        ]
        wanted = torch.stack(cropped)
        found[variant] = round(float((batch["image"].float() - wanted.float()).abs().mean()), 3)
    return found


def child(command: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def measure(options: argparse.Namespace, work: Path) -> None:
    pack(options.images, work, options.repeat)
    ours = [sys.executable, __file__, "--images", str(options.images), "--work", str(work), "--side"]
    commands = {variant: [*ours, variant] for variant in VARIANTS}
    for peer in options.peer:
        name, _, python = peer.partition("=")
        where = ["--images", str(options.images), "--work", str(work / f"peer-{name}"), "--repeat", str(options.repeat)]
        script = [python or sys.executable, str(options.peers), *where, "--epochs", "1", "--peer", name]
        commands[name] = script
    rates: dict[str, list[float]] = {side: [] for side in commands}
    for _ in range(options.rounds):
        for side, command in commands.items():
            for row in child(command):
                rate = row["images_s"] if "images_s" in row else statistics.median(row["img_per_s"])
                rates[side].append(rate)
                print(json.dumps(row), flush=True)
    medians = {side: statistics.median(each) for side, each in rates.items()}
    best = max((medians[side] for side in medians if side not in VARIANTS), default=None)
    print(json.dumps({"agree": child([*ours, "agree"])[0], "images_s": medians}))
    if best:
        print(json.dumps({f"{variant}_of_best_peer": round(medians[variant] / best, 2) for variant in VARIANTS}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="keeps the packed variants for another run")
    parser.add_argument("--peers", type=Path, help="the peers' script")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME[=PYTHON]")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(agree(options.work) if options.side == "agree" else run(options.side, options.work)))
    elif options.work:
        options.work.mkdir(parents=True, exist_ok=True)
        measure(options, options.work)
    else:
        with tempfile.TemporaryDirectory() as name:
            measure(options, Path(name))


if __name__ == "__main__":
    main()
