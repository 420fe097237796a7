"""The GPU path beside what else decodes on a GPU, in one command.

    python tests/benchmarks/bench_gpu.py [--images DIR] [--repeat 48] [--rounds 3] [--work DIR] [--only ROW ...]

Rows, each a process of its own that prints one JSON line with the device's name:

- ``published``, ``tiled``: ImageNet JPEGs (``--images``, ``--repeat`` copies of each, distinct by a comment) through
  `StreamingLoader(device=)`: random resized crop 224, flip, bf16 channels-last batches of 256 on the device; also
  with fewer worker threads, and with nvImageCodec, where it is installed, at several shares for the hardware engine.
- ``torchvision``, ``nvimagecodec``, ``spdl``, ``dali``: the same work by others (`_gpu_peers`), the bytes in memory;
  one that is not installed prints why.
- ``kernel``: the fused kernel's bytes a second, read and written, as a share of a device-to-device copy's; then its
  microseconds with other tiles than its own.
- ``step``: ResNet-50 training steps fed by the loader, as a share of the same steps on one batch already there.
- ``cifar``: 50,000 images of 32 x 32 resident on the device, random crop, flip, normalised bf16, several batch sizes.

Without a CUDA device it says so in one line and exits with 0. ``--device cpu --small`` runs the same pipeline on tiny
sizes in memory, to know that the script is sound; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks._gpu_peers import PEERS, SIZE, Missing  # noqa: E402 - the checkout is not installed

SHARES, WORKERS = (0.5, 0.75, 1.0), (2, 4, 8)
OURS = ("published", "tiled")
VARIED = (
    *(f"{each} workers={workers}" for each in OURS for workers in WORKERS),
    *(f"{each} share={share}" for each in OURS for share in SHARES),
)
ROWS = (*OURS, *VARIED, *PEERS, "kernel", "step", "cifar")
LONG = 3.0
"""Seconds that a round takes at least."""
MADE = 64
"""Images drawn where no folder is given."""


class Bench:
    """The options, and what several rows need."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.small, self.work, self.rounds = bool(options.small), options.work, options.rounds
        self.device = torch.device(options.device)
        if self.device.type == "cuda":
            self.device = torch.device("cuda", self.device.index or 0)
        self.batch = 4 if self.small else 256

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu, in rehearsal"

    def where(self, share: float | None = None) -> Any:
        """What `StreamingLoader` gets as its device."""
        if self.device.type == "cpu":
            from datahub.tensor.device.rehearsal import Rehearsal

            return Rehearsal()
        from datahub.loader.device import CudaOptions

        return CudaOptions(self.device.index, "auto" if share is None else "nvimgcodec", share)

    def settings(self) -> Any:
        from datahub.core.settings import Settings

        return Settings(home=self.work / "home")

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(self, batches: Callable[[], Iterable[torch.Tensor]]) -> dict[str, Any]:
        """Images a second over rounds of whole passes, the first of which warms up; the median and all of them."""
        rates = []
        for _ in range(self.rounds + 1):
            self.wait()
            began, seen = time.perf_counter(), 0
            while not seen or (time.perf_counter() - began < LONG and not self.small):
                for images in batches():
                    seen += len(images)
            self.wait()
            rates.append(seen / (time.perf_counter() - began))
        return {"images_s": round(statistics.median(rates[1:])), "rounds": [round(each) for each in rates[1:]]}

    def seconds(self, call: Callable[[], Any], count: int) -> float:
        """Seconds of one ``call``, the median of ``count`` after three."""
        if self.device.type == "cpu":
            times = []
            for _ in range(count):
                began = time.perf_counter()
                call()
                times.append(time.perf_counter() - began)
            return statistics.median(times)
        for _ in range(3):
            call()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
        for begin, end in events:
            begin.record()
            call()
            end.record()
        self.wait()
        return statistics.median(begin.elapsed_time(end) for begin, end in events) / 1000


# -- data -------------------------------------------------------------------------------------------------------------


def prepare(bench: Bench, images: Path | None, repeat: int) -> None:
    """Packs what rows read, unless it stands there: `published`, `tiled` (where jpegtran is) and small images."""
    from tests.benchmarks._ilsvrc import distinct

    folder = bench.work / "folder"
    if not folder.exists():
        found = sorted(images.rglob("*.[jJ][pP]*[gG]")) if images is not None else []
        encoded = [path.read_bytes() for path in found] or drawn(16 if bench.small else MADE, bench.small)
        if bench.small:
            encoded = encoded[:16]
        for number in range(1 if bench.small else repeat):
            for row, data in enumerate(encoded):
                to = folder / f"class{row % 10}" / f"{row}-{number}.jpg"
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(distinct(data, number))
    _pack(bench, f"imagefolder:{folder}", "gpubench@1/published")
    import shutil

    if shutil.which("jpegtran"):
        _pack(bench, "gpubench@1/published", "gpubench@1/tiled")
    _cifar(bench)


def _pack(bench: Bench, source: str, ref: str) -> None:
    import os

    command = [sys.executable, "-m", "datahub", "--home", str(bench.work / "home"), "pack", "-q", source, ref]
    subprocess.run([*command, "--stats", "none"], check=True, cwd=ROOT, env=dict(os.environ))


def drawn(count: int, small: bool) -> list[bytes]:
    """JPEGs of about ImageNet's sizes and bytes: smooth shapes under noise."""
    import cv2

    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        height, width = rng.integers(40, 90, 2) if small else rng.integers(330, 560, 2)
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (int(width), int(height)), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image += rng.integers(-24, 24, image.shape, dtype=np.int16)
        _, data = cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        found.append(data.tobytes())
    return found


def _cifar(bench: Bench) -> None:
    import datahub
    from datahub.core.errors import NotInStore
    from datahub.pack.authoring import Writer

    settings = bench.settings()
    try:
        datahub.open("gpubench-small", settings)
    except NotInStore:
        rng = np.random.default_rng(0)
        with Writer("gpubench-small", {"image": "image", "label": "label"}, settings=settings) as writer:
            for row in range(256 if bench.small else 50_000):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                writer.write(split="train", source=str(row), image=pixels, label=f"c{row % 10}")


# -- rows -------------------------------------------------------------------------------------------------------------


def loader(bench: Bench, variant: str = "published", share: float | None = None, **more: Any) -> Any:
    import datahub

    return datahub.StreamingLoader(
        f"gpubench@1/{variant}", batch_size=bench.batch, shuffle=True, drop_last=True, transform="imagenet_train",
        dtype=torch.bfloat16, channels_last=True, device=bench.where(share), prefetch=4, fields=("image", "label"),
        settings=bench.settings(), **more,
    )  # fmt: skip


def ours(bench: Bench, row: str) -> dict[str, Any]:
    from datahub.core.errors import BadArgument, NotInStore

    variant, _, setting = row.partition(" ")
    name, _, value = setting.partition("=")
    share = float(value) if name == "share" else None
    workers = int(value) if name == "workers" else None
    try:
        with loader(bench, variant, share, num_workers=workers) as made:
            for image, _ in made:
                assert image.shape[1:] == (3, SIZE, SIZE) and image.dtype == torch.bfloat16
                assert image.is_contiguous(memory_format=torch.channels_last) and image.device == bench.device
                break
            found = bench.rate(lambda: (image for image, _ in made))
            return {**found, "stats": _stages(made.stats()), "how": made.explain().splitlines()[-1]}
    except NotInStore as error:
        raise Missing("jpegtran is not on the PATH, which tiles") from error
    except BadArgument as error:
        raise Missing(str(error)) from error


def _stages(stats: Any) -> dict[str, float]:
    return {name: round(stats[f"{name}_seconds"], 2) for name in ("read", "decode", "transform", "assemble")}


def peer(bench: Bench, name: str) -> dict[str, Any]:
    import datahub

    split = datahub.open("gpubench@1/published", bench.settings())["train"]
    images = [split[row].encoded for row in range(len(split))]
    return bench.rate(lambda: PEERS[name](images, bench.batch, bench.device))


def kernel(bench: Bench) -> dict[str, Any]:
    """Bytes of pixels in the boxes and of the batch, over the time of both kernels together."""
    from datahub.tensor.draws import Draws
    from datahub.tensor.folding import fold
    from datahub.tensor.fused.apply import resample
    from datahub.tensor.fused.regions import Regions
    from datahub.tensor.normalize import Normalize
    from datahub.tensor.presets import FIXED, IMAGENET

    rng = np.random.default_rng(0)
    sizes = rng.integers(40, 90, (bench.batch, 2)) if bench.small else rng.integers(330, 560, (bench.batch, 2))
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, device=bench.device) for size in sizes.tolist()]
    folded = fold(FIXED["imagenet_train"]())
    assert folded is not None
    frames = folded.frames(sizes, Draws(0, 0, np.arange(bench.batch)))
    regions = Regions.of(frames.scaled, frames.window, frames.flip, (SIZE, SIZE), frames.box.tolist())
    lookup = Normalize(*IMAGENET).lookup(torch.bfloat16, 3).to(bench.device)
    # Told of beforehand, as by a lane: the copy of a few kilobytes is no part of the kernel.
    told: dict[tuple[int, ...], torch.Tensor] = {}

    def upload(numbers: np.ndarray) -> torch.Tensor:
        return told.setdefault(numbers.shape, torch.from_numpy(numbers).to(bench.device))

    def run() -> torch.Tensor:
        return resample(images, regions, lookup=lookup, channels_last=True, upload=upload)

    batch = run()
    read = int((frames.box[:, 2] * frames.box[:, 3] * 3).sum())
    moved = read + batch.nbytes
    seconds = _graphed(bench, run)
    source = torch.empty(1 << (16 if bench.small else 30), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / bench.seconds(lambda: target.copy_(source), 20)
    rate = moved / seconds
    others = {} if bench.small else _tiles(bench, run)
    return {
        "microseconds": round(seconds * 1e6, 1), "read_mb": round(read / 1e6, 1), "written_mb": batch.nbytes / 1e6,
        "gb_s": round(rate / 1e9, 1), "copy_gb_s": round(copied / 1e9, 1), "share_of_copy": round(rate / copied, 3),
        "tiles_microseconds": others,
    }  # fmt: skip


def _tiles(bench: Bench, run: Callable[[], Any]) -> dict[str, float]:
    from datahub.tensor.fused import apply

    own, found = (apply.TALL, apply.WIDE), {}
    for tall, wide in ((16, 32), (32, 32), (32, 64), (64, 32), (32, 128)):
        apply.TALL, apply.WIDE = tall, wide
        found[f"{tall} x {wide}"] = round(_graphed(bench, run) * 1e6, 1)
    apply.TALL, apply.WIDE = own
    return found


def _graphed(bench: Bench, run: Callable[[], Any]) -> float:
    """Seconds of ``run`` on the device, without what the host takes to launch it."""
    if bench.device.type == "cpu":
        return bench.seconds(run, 2)
    side = torch.cuda.Stream(bench.device)
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return bench.seconds(graph.replay, 50)


def step(bench: Bench) -> dict[str, Any]:
    from torchvision.models import resnet18, resnet50

    model = (resnet18 if bench.small else resnet50)(num_classes=1000).to(bench.device)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    lossy = torch.nn.CrossEntropyLoss()

    def train(images: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss = lossy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    steps = 2 if bench.small else 40
    with loader(bench, "published") as made:
        images, labels = next(iter(made))
        resident = _steps(bench, steps, lambda: (train(images, labels) for _ in iter(int, 1)))
        fed = _steps(bench, steps, lambda: _fed(made, train))
        waited = made.stats()["wait_seconds"]
    return {
        "resident_images_s": round(bench.batch / resident), "loader_images_s": round(bench.batch / fed),
        "share": round(resident / fed, 3), "waited_s": round(waited, 2),
    }  # fmt: skip


def _fed(made: Any, train: Callable[[torch.Tensor, torch.Tensor], None]) -> Iterable[None]:
    while True:
        for images, labels in made:
            yield train(images, labels)


def _steps(bench: Bench, count: int, begin: Callable[[], Iterable[None]]) -> float:
    """Seconds a step, after ten (or one) that warm up."""
    warm, began = (1 if bench.small else 10), 0.0
    for done, _ in enumerate(begin(), 1):
        if done == warm:
            bench.wait()
            began = time.perf_counter()
        if done == warm + count:
            break
    bench.wait()
    return (time.perf_counter() - began) / count


def cifar(bench: Bench) -> dict[str, Any]:
    import datahub

    t = datahub.transforms
    transform = t.Compose(
        [t.RandomCrop(32, padding=4), t.RandomHorizontalFlip(), t.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))]
    )
    found: dict[str, Any] = {}
    for batch in (64,) if bench.small else (512, 2048, 8192):
        with datahub.StreamingLoader(
            "gpubench-small", batch_size=batch, shuffle=True, drop_last=True, transform=transform,
            dtype=torch.bfloat16, channels_last=True, device=bench.where(), residency="device", prefetch=4,
            fields=("image", "label"), settings=bench.settings(),
        ) as made:  # fmt: skip
            found[f"batch {batch}"] = bench.rate(lambda made=made: (image for image, _ in made))["images_s"]
    return {"images_s": max(found.values()), **found}


def row_of(bench: Bench, row: str) -> dict[str, Any]:
    if row.partition(" ")[0] in OURS:
        return ours(bench, row)
    if row in PEERS:
        return peer(bench, row)
    return {"kernel": kernel, "step": step, "cifar": cifar}[row](bench)


def side(bench: Bench, row: str) -> None:
    common = {"row": row, "device": bench.name, "torch": torch.__version__}
    try:
        print(json.dumps({**common, **row_of(bench, row)}))
    except Missing as error:
        print(json.dumps({**common, "skipped": str(error)}))


# -- all of them ------------------------------------------------------------------------------------------------------


def run(bench: Bench, options: argparse.Namespace) -> None:
    prepare(bench, options.images, options.repeat)
    rates: dict[str, float] = {}
    for row in options.only or ROWS:
        command = [sys.executable, __file__, "--side", row, "--work", str(bench.work), "--device", options.device]
        command += ["--rounds", str(options.rounds), *(["--small"] if bench.small else [])]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            failed = {"row": row, "exit": done.returncode, "failed": done.stderr.strip().splitlines()[-1:]}
            print(json.dumps(failed), flush=True)
            continue
        print(lines[-1], flush=True)
        rates[row] = json.loads(lines[-1]).get("images_s", 0)
    best = max((rates.get(row, 0) for row in ROWS if row.partition(" ")[0] in OURS), default=0)
    ratios = {f"ours_of_{name}": round(best / rates[name], 2) for name in PEERS if rates.get(name)}
    print(json.dumps({"row": "ratios", "device": bench.name, **ratios}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; drawn ones without it")
    parser.add_argument("--repeat", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu with --small")
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
