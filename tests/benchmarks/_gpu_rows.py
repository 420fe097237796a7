"""The rows of `bench_gpu`, each measured in this process."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from tests.benchmarks._gpu_bench import Bench
from tests.benchmarks._gpu_peers import PEERS, SIZE, Missing

OURS = ("published", "tiled")
TILES = ((16, 128), (32, 128), (56, 128), (112, 128), (32, 64), (64, 64), (32, 256))


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
    residency = value if name == "residency" else "auto"
    try:
        with loader(bench, variant, share, num_workers=workers, residency=residency) as made:
            for image, _ in made:
                assert image.shape[1:] == (3, SIZE, SIZE) and image.dtype == torch.bfloat16
                assert image.is_contiguous(memory_format=torch.channels_last) and image.device == bench.device
                break
            found = bench.rate(lambda: (image for image, _ in made))
            stats = made.stats()
            how = next(line for line in made.explain().splitlines() if line.startswith("device: "))
            fetch = _fetched(bench, made) if residency == "encoded" else {}
            return {**found, **fetch, "stats": _stages(stats), "refused": stats["refused"], "how": how}
    except NotInStore as error:
        if variant == "published":
            raise
        raise Missing("was not packed: jpegtran is not on the PATH, or failed") from error
    except BadArgument as error:
        raise Missing(str(error)) from error


def _fetched(bench: Bench, made: Any) -> dict[str, Any]:
    """Of the first batch's bytes, from the device to this process's memory."""
    spans = made._assembler.spans(made._course.schedule.step(0, 0).index)
    seconds = statistics.median(_timed(lambda: made._assembler.source.batch(spans)) for _ in range(20))
    return {"fetch_gb_s": round(int(spans.size.sum()) / seconds / 1e9, 2), "fetch_ms": round(seconds * 1e3, 2)}


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _stages(stats: Any) -> dict[str, float]:
    return {name: round(stats[f"{name}_seconds"], 2) for name in ("read", "decode", "transform", "assemble")}


def device(bench: Bench) -> dict[str, Any]:
    import torchvision

    found: dict[str, Any] = {"copy_gb_s": round(bench.copied() / 1e9, 3), "processors": os.cpu_count()}
    found |= {"python": platform.python_version(), "torchvision": torchvision.__version__, "cuda": torch.version.cuda}
    if bench.device.type == "cuda":
        card = torch.cuda.get_device_properties(bench.device)
        found |= {"memory_gb": round(card.total_memory / 1e9), "multiprocessors": card.multi_processor_count}
        found["decoder"] = bench.decoder()
        found["clocks"] = _clocks(bench.device.index)
    return found


def _clocks(index: int | None) -> str | None:
    """Of the multiprocessors now and at most, of the memory, and the limit of power; None where nobody says."""
    fields = "clocks.sm,clocks.max.sm,clocks.mem,power.limit,driver_version"
    try:
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "-i", str(index or 0)]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


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
    wanted = resample(images, regions, lookup=lookup, channels_last=True, kernel=False)
    read = int((frames.box[:, 2] * frames.box[:, 3] * 3).sum())
    moved = read + batch.nbytes
    seconds = _graphed(bench, run)
    copied = bench.copied()
    rate = moved / seconds
    others = {} if bench.small else _tiles(bench, run)
    return {
        "microseconds": round(seconds * 1e6, 1), "read_mb": round(read / 1e6, 1), "written_mb": batch.nbytes / 1e6,
        "gb_s": round(rate / 1e9, 3), "copy_gb_s": round(copied / 1e9, 3), "share_of_copy": round(rate / copied, 3),
        "is_the_reference": torch.equal(batch, wanted), "tiles_microseconds": others,
    }  # fmt: skip


def _tiles(bench: Bench, run: Callable[[], Any]) -> dict[str, float]:
    from datahub.tensor.fused import apply

    own, found = (apply.TALL, apply.WIDE), {}
    for tall, wide in TILES:
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
    torch.backends.cudnn.benchmark = True
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
    tried = [(64, 2)] if bench.small else [(512, 0), (2048, 0), *((8192, each) for each in (0, 1, 4)), (16384, 0)]
    for batch, workers in tried:
        with datahub.StreamingLoader(
            "gpubench-small", batch_size=batch, shuffle=True, drop_last=True, transform=transform,
            dtype=torch.bfloat16, channels_last=True, device=bench.where(), residency="device", prefetch=4,
            fields=("image", "label"), settings=bench.settings(), num_workers=workers,
        ) as made:  # fmt: skip
            rate = bench.rate(lambda made=made: (image for image, _ in made), 1.0)["images_s"]
            found[f"batch {batch} workers={workers}"] = rate
    return {"images_s": max(found.values()), **found}


def row_of(bench: Bench, row: str) -> dict[str, Any]:
    if row.partition(" ")[0] in OURS:
        return ours(bench, row)
    if row in PEERS:
        return peer(bench, row)
    return {"device": device, "kernel": kernel, "step": step, "cifar": cifar}[row](bench)
