"""The GPU path beside what else decodes on a GPU, in one command.

    python tests/benchmarks/bench_gpu.py [--images DIR] [--repeat 48] [--rounds 3] [--work DIR] [--minutes 8]
                                         [--only ROW ...]

Rows, each a process of its own that prints one JSON line with the device's name. One that fails, or takes too long,
says so and the next one begins; none begins after ``--minutes``. The last line holds what was asked for beside it.

- ``device``: the card, its clocks, versions, and gigabytes a second of a copy on it.
- ``published``, ``tiled``: ImageNet JPEGs (``--images``, ``--repeat`` copies of each, distinct by a comment) through
  `StreamingLoader(device=)`: random resized crop 224, flip, bf16 channels-last batches of 256 on the device; also
  with fewer worker threads, and with nvImageCodec, where it is installed, at several shares for the hardware engine.
- ``published residency=encoded``, ``tiled residency=encoded``: the same with the encoded bytes held on the device; and
  ``fetch``, gigabytes a second of a batch's bytes gathered there and brought back, and its milliseconds.
- ``torchvision``, ``nvimagecodec``, ``spdl``, ``dali``: the same work by others (`_gpu_peers`), the bytes in memory;
  one that is not installed prints why.
- ``kernel``: the fused kernel's bytes a second, read and written, as a share of a device-to-device copy's; then its
  microseconds with other tiles than its own. Its batch is compared with that of the reference in torch.
- ``step``: ResNet-50 training steps fed by the loader, as a share of the same steps on one batch already there.
- ``cifar``: 50,000 images of 32 x 32 resident on the device, random crop, flip, normalised bf16, with several batch
  sizes and worker threads: all that the host does is to say which rows, and what is drawn for them.

Without a CUDA device it says so in one line and exits with 0. ``--device cpu --small`` runs the same pipeline on tiny
sizes in memory, to know that the script is sound; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks._gpu_bench import Bench  # noqa: E402 - the checkout is not installed
from tests.benchmarks._gpu_data import preparations  # noqa: E402
from tests.benchmarks._gpu_peers import PEERS, Missing  # noqa: E402
from tests.benchmarks._gpu_rows import OURS, row_of  # noqa: E402

SHARES, WORKERS = (0.5, 0.75, 1.0), (2, 4, 8)
HELD = tuple(f"{each} residency=encoded" for each in OURS)
VARIED = (
    *(f"{each} workers={workers}" for each in OURS for workers in WORKERS),
    *(f"{each} share={share}" for each in OURS for share in SHARES),
)
ROWS = ("device", "kernel", *OURS, *PEERS, "step", "cifar", *HELD, *VARIED)
"""What is asked for comes first."""
GOALS = {"ours_of_torchvision": 2.0, "ours_of_dali": 1.2, "kernel": 0.7, "step": 0.97, "cifar": 5e6}
ROW_SECONDS = 150.0


def side(bench: Bench, row: str) -> None:
    common = {"row": row, "device": bench.name, "torch": torch.__version__}
    try:
        print(json.dumps({**common, **row_of(bench, row)}))
    except Missing as error:
        print(json.dumps({**common, "skipped": str(error)}))


def run(bench: Bench, options: argparse.Namespace) -> None:
    last = time.monotonic() + 60 * options.minutes
    for name, prepare in preparations(bench, options.images, options.repeat).items():
        try:
            prepare()
        except Exception as error:  # noqa: BLE001 - its rows will say that they miss it; others need not
            print(json.dumps({"row": f"packing {name}", "failed": str(error)}), flush=True)
    found = {}
    for row in options.only or ROWS:
        found[row] = told(row, options, last - time.monotonic())
        print(json.dumps(found[row]), flush=True)
    print(json.dumps({"row": "goals", "device": bench.name, **reached(found)}))


def told(row: str, options: argparse.Namespace, left: float) -> dict[str, Any]:
    """What the row's own process prints, or what became of it."""
    if left <= 0:
        return {"row": row, "skipped": f"--minutes {options.minutes:g} are over"}
    command = [sys.executable, __file__, "--side", row, "--work", str(options.work), "--device", options.device]
    command += ["--rounds", str(options.rounds), *(["--small"] if options.small else [])]
    limit = min(ROW_SECONDS, max(left, 20.0))
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"row": row, "failed": f"took more than {limit:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"row": row, "exit": done.returncode, "failed": done.stderr.strip().splitlines()[-5:]}
    line: dict[str, Any] = json.loads(lines[-1])
    return line


def reached(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was asked for and came of it, each [found, asked for]; only of rows that gave a figure."""
    rates = {row: each["images_s"] for row, each in found.items() if each.get("images_s")}
    shares = {"kernel": found.get("kernel", {}).get("share_of_copy"), "step": found.get("step", {}).get("share")}
    best = max((rate for row, rate in rates.items() if row.partition(" ")[0] in OURS), default=0)
    ratios = {f"ours_of_{name}": round(best / rates[name], 2) for name in PEERS if best and name in rates}
    figures = {**ratios, **{row: share for row, share in shares.items() if share}}
    if "cifar" in rates:
        figures["cifar"] = rates["cifar"]
    return {name: [figure, GOALS[name]] if name in GOALS else figure for name, figure in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; drawn ones without it")
    parser.add_argument("--repeat", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu with --small")
    parser.add_argument("--minutes", type=float, default=8.0, help="no row begins later")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--work", type=Path, help="keeps the packed sets for another run")
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW")
    parser.add_argument("--side", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(json.dumps({"skipped": "no CUDA device is here; --device cpu --small tries the script"}))
        return
    if options.device == "cpu" and not options.small:
        parser.error("--device cpu needs --small")
    if options.side:
        side(Bench(options), options.side)
        return
    with tempfile.TemporaryDirectory() as name:
        options.work = options.work or Path(name)
        options.work.mkdir(parents=True, exist_ok=True)
        run(Bench(options), options)


if __name__ == "__main__":
    main()
