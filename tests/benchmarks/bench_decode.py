"""Random-resized-crop 224 and flip to uint8 batches of 64, two workers, beside other loaders of the same JPEGs.

    python tests/benchmarks/bench_decode.py --images DIR [--repeat 16] [--rounds 3] [--work DIR] \\
        --peers SCRIPT --peer torchvision_files --peer dali=PYTHON ...

`published`, `tiled` and `max256` are packed from an image folder of ``--repeat`` copies of DIR's JPEGs, each with a
comment of its own. ``--peers`` is a script whose ``listing(images, repeat)`` gives items, and whose
``PEERS[name](items, work)`` gives what makes an epoch's batches; ``--peer`` says which to run, with what interpreter.
Every row runs in a process of its own, in turns. One epoch is its rate and its processor time, which counts the whole
tree of processes from the first batch on; the largest PSS of the tree is its memory. A peer's copy in a format of its
own is made in an epoch that does not count.

Prints one JSON line a row, then medians and ratios to the best peer. ``agree`` is the mean absolute difference, in grey
levels, between our output and torchvision's ``resized_crop(antialias=True)`` of the same boxes; more than one is an
error. ``us_an_image`` says what one thread's time goes to.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
    """An epoch of ours."""
    import torch

    import datahub
    from datahub import transforms
    from datahub.core.settings import Settings

    torch.set_num_threads(1)
    loader = datahub.StreamingLoader(
        f"decodebench@1/{variant}", batch_size=BATCH, shuffle=True, drop_last=True, num_workers=WORKERS,
        transform=transforms.Compose([transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip()]),
        fields=("image", "label"), residency="stream", settings=Settings(home=work / "home"),
    )  # fmt: skip
    with loader:
        return {"side": variant, **epoch(iter(loader))}


def run_peer(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """An epoch of a peer's; the first run ever makes its copy of the images."""
    sys.path.insert(0, str(options.peers.parent))
    peers = importlib.import_module(options.peers.stem)
    options.work.mkdir(parents=True, exist_ok=True)
    make = peers.PEERS[name](peers.listing(str(options.images), options.repeat), str(options.work))
    return {"side": name, **epoch(make())}


def epoch(batches: Iterator[Any]) -> dict[str, float]:
    """Images and processor seconds from the first batch on."""
    import psutil
    import torch

    seen, began, used, tree = -1, 0.0, 0.0, [psutil.Process()]
    for batch in batches:
        image = batch["jpg"] if isinstance(batch, dict) else batch[0]
        assert tuple(image.shape) == (BATCH, 3, SIZE, SIZE)
        assert (image.dtype if isinstance(image, torch.Tensor) else torch.from_numpy(image).dtype) == torch.uint8
        if seen < 0:
            tree += tree[0].children(recursive=True)
            seen, began, used = 0, time.perf_counter(), processor(tree)
            continue
        seen += len(image)
        seconds, cpu = time.perf_counter() - began, processor(tree) - used  # while workers live
    return {"images_s": round(seen / seconds), "cpu_s_1000": round(1000 * cpu / seen, 2)}


def processor(tree: list[Any]) -> float:
    """Processor seconds of these processes, so far."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in tree))


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


def shares(work: Path) -> dict[str, dict[str, int]]:
    return {variant: spent(variant, work) for variant in VARIANTS}


def spent(variant: str, work: Path, images: int = 192) -> dict[str, int]:
    """Microseconds of processor time an image, in one thread, by what they go to; each part alone, so that caches help.

    An eighth of the scale needs hardly anything but entropy decoding.
    """
    import numpy as np
    import simplejpeg
    import torch

    import datahub
    from datahub import transforms
    from datahub.core.settings import Settings
    from datahub.tensor.draws import Draws
    from datahub.tensor.framed import decode_framed, outputs, sizes_of
    from datahub.tensor.frames import Frames
    from datahub.tensor.partial import Part, _decoded, part_of
    from datahub.tensor.resample import framed_pixels

    torch.set_num_threads(1)
    loader = datahub.StreamingLoader(
        f"decodebench@1/{variant}", batch_size=images, num_workers=0, fields=("encoded",), residency="stream",
        settings=Settings(home=work / "home"),
    )  # fmt: skip
    with loader:
        (encoded,) = loader.at(0, 0)
    draws = Draws(0, 0, np.arange(images, dtype=np.int64))
    frames = transforms.RandomResizedCrop(SIZE).framed(Frames.whole(sizes_of(encoded)), draws)
    rows, out = frames.rows(), outputs(frames, 3)

    def look() -> list[Part | None]:
        return [part_of(data, row.source, row.box) for data, row in zip(encoded, rows, strict=True)]

    parts = [part for part in look() if part is not None]
    assert len(parts) == images
    regions = []
    for part, (_, (_, _, width, height), *_) in zip(parts, rows, strict=True):
        regions.append(_decoded(part, 3).copy()[part.y : part.y + height, part.x : part.x + width])

    def scale() -> None:
        for region, row, each in zip(regions, rows, out, strict=True):
            framed_pixels(region, row.scaled, row.window, False, each)

    calls: dict[str, Callable[[], Any]] = {
        "all": lambda: decode_framed(encoded, frames, out),
        "python": look,
        "entropy": lambda: [simplejpeg.decode_jpeg(p.data, min_height=1, min_width=1, strict=False) for p in parts],
        "decode": lambda: [_decoded(part, 3) for part in parts],
        "scale": scale,
    }
    return {name: round(cost(call) * 1e6 / images) for name, call in calls.items()}


def cost(call: Callable[[], Any]) -> float:
    """Processor seconds of the best of three."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        call()
        found.append(time.thread_time() - began)
    return min(found)


def child(command: list[str]) -> dict[str, Any]:
    """The line that a process prints, and the largest PSS of its tree."""
    from tests.benchmarks.bench_bytes import Memory

    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT)
        memory = Memory(process.pid)
        out, _ = process.communicate()
        peak = memory.stop()
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{command} failed:\n{said.read()[-2000:]}")
    found: dict[str, Any] = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    return {**found, "pss_mib": round(peak)}


def measure(options: argparse.Namespace, work: Path) -> None:
    pack(options.images, work, options.repeat)
    common = ["--images", str(options.images), "--repeat", str(options.repeat)]
    commands = {v: [sys.executable, __file__, *common, "--work", str(work), "--side", v] for v in VARIANTS}
    for peer in options.peer:
        name, _, python = peer.partition("=")
        folder = work / f"peer-{name}"
        where = [*common, "--work", str(folder), "--peers", str(options.peers.resolve()), "--side", name]
        commands[name] = [python or sys.executable, __file__, *where]
        if not folder.exists():
            child(commands[name])
    rows: dict[str, list[dict[str, Any]]] = {side: [] for side in commands}
    for _ in range(options.rounds):
        for side, command in commands.items():
            rows[side].append(child(command))
            print(json.dumps(rows[side][-1]), flush=True)
    names = ("images_s", "cpu_s_1000", "pss_mib")
    medians = {
        side: {name: statistics.median(row[name] for row in found) for name in names} for side, found in rows.items()
    }
    close = child([sys.executable, __file__, *common, "--work", str(work), "--side", "agree"])
    print(json.dumps({"agree": close, "medians": medians}))
    print(
        json.dumps({"us_an_image": child([sys.executable, __file__, *common, "--work", str(work), "--side", "shares"])})
    )
    peers = {side: found for side, found in medians.items() if side not in VARIANTS}
    if peers:
        compare(medians, peers)
    if max(close[variant] for variant in VARIANTS) > 1:
        raise SystemExit("what comes out is not what torchvision gives")


def compare(medians: dict[str, dict[str, float]], peers: dict[str, dict[str, float]]) -> None:
    best = max(peers, key=lambda side: peers[side]["images_s"])
    thrifty = min(peers, key=lambda side: peers[side]["cpu_s_1000"])
    lean = min(peers, key=lambda side: peers[side]["pss_mib"])
    print(json.dumps({"best_peer": best, "least_processor": thrifty, "leanest": lean}))
    for variant in VARIANTS:
        mine = medians[variant]
        print(json.dumps({
            "figure": variant,
            "images_s_to_best": round(mine["images_s"] / peers[best]["images_s"], 2),
            "images_per_cpu_s_to_least": round(peers[thrifty]["cpu_s_1000"] / mine["cpu_s_1000"], 2),
            "pss_to_leanest": round(mine["pss_mib"] / peers[lean]["pss_mib"], 2),
        }))  # fmt: skip


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
    if options.side and options.peers:
        print(json.dumps(run_peer(options.side, options)), flush=True)
    elif options.side:
        named = {"agree": agree, "shares": shares}
        made = named[options.side](options.work) if options.side in named else run(options.side, options.work)
        print(json.dumps(made))
    elif options.work:
        options.work.mkdir(parents=True, exist_ok=True)
        measure(options, options.work)
    else:
        with tempfile.TemporaryDirectory() as name:
            measure(options, Path(name))


if __name__ == "__main__":
    main()
