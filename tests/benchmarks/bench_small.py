"""Small sets from memory, beside a plain-torch bound, FFCV and torchvision, alternately in one run.

    python tests/benchmarks/bench_small.py --work DIR [--rounds 9] [--ffcv-python PYTHON]

`mnist`: shuffled float32 normalised batches of 512 with int64 labels; `limit` is the whole set as one tensor, one
permutation, one gather and one fused scale a batch. `cifar`: 50,000 images of 32 x 32 with a random crop (pad 4) and a
random flip for each sample, normalised. `augment`: the same augmentation of batches already in memory, beside
torchvision's v2 transforms called once a sample.

MNIST must be in the store (``datahub fetch mnist``); the other set is packed there. FFCV's row needs a Python that has
it, which need not have datahub. Peers run with two torch threads, and once more with one: on a machine that others use,
two wait for each other. Each row runs in a process of its own that waits for its turn; the clock starts once the
batches made ahead have been taken. Prints one JSON line a row, then the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCH, WORKERS = 512, 2
AHEAD = 5
"""Batches taken before the clock starts."""
MEAN, STD = (0.1307,), (0.3081,)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR = "bench-cifar"
SHAPES = {"mnist": (1, 28, 28), "cifar": (3, 32, 32)}
Epoch = Callable[[], Iterable[Any]]


def arrays(work: Path, task: str) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, C, H, W) and int64 (N,)."""
    return np.load(work / f"{task}-x.npy"), np.load(work / f"{task}-y.npy")


def ours_mnist(work: Path, workers: int = WORKERS) -> Epoch:
    import datahub

    return _loader("mnist", datahub.transforms.Normalize(MEAN, STD), workers)


def inline_mnist(work: Path) -> Epoch:
    return ours_mnist(work, workers=0)


def ours_cifar(work: Path) -> Epoch:
    import datahub

    t = datahub.transforms
    return _loader(
        CIFAR,
        t.Compose([t.RandomCrop(32, padding=4), t.RandomHorizontalFlip(), t.Normalize(CIFAR_MEAN, CIFAR_STD)]),
    )


def _loader(ref: str, transform: Any, workers: int = WORKERS) -> Epoch:
    import datahub

    made = datahub.StreamingLoader(
        ref,
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        residency="host",
        transform=transform,
        fields=("image", "label"),
        num_workers=workers,
    )
    return lambda: iter(made)


def limit_mnist(work: Path) -> Epoch:
    x, y = map(torch.from_numpy, arrays(work, "mnist"))

    def epoch() -> Iterator[Any]:
        order = torch.randperm(len(x))
        for first in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[first : first + BATCH]
            yield x[rows].to(torch.float32).mul_(1 / (255 * STD[0])).sub_(MEAN[0] / STD[0]), y[rows]

    return epoch


def ffcv_mnist(work: Path) -> Epoch:
    from ffcv.fields import IntField, NDArrayField
    from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
    from ffcv.transforms import ToTensor

    fields = {"x": NDArrayField(np.dtype("uint8"), (1, 28, 28)), "y": IntField()}
    loader = _ffcv(
        work, "mnist", fields, {"x": [NDArrayDecoder(), ToTensor()], "y": [IntDecoder(), ToTensor()]}, lambda x: x
    )
    return lambda: ((a.float().div_(255).sub_(MEAN[0]).div_(STD[0]), b.squeeze(1)) for a, b in loader)


def ffcv_cifar(work: Path) -> Epoch:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, ToTensor, ToTorchImage

    mean, std = (np.array(each) * 255 for each in (CIFAR_MEAN, CIFAR_STD))
    pipeline = [
        SimpleRGBImageDecoder(),
        RandomHorizontalFlip(),
        RandomTranslate(padding=4, fill=(0, 0, 0)),
        NormalizeImage(mean, std, np.float32),
        ToTensor(),
        ToTorchImage(convert_back_int16=False),  # channels last in memory: it is spared the transposition
    ]
    fields = {"x": RGBImageField(write_mode="raw"), "y": IntField()}
    loader = _ffcv(
        work,
        "cifar",
        fields,
        {"x": pipeline, "y": [IntDecoder(), ToTensor()]},
        lambda image: np.ascontiguousarray(image.transpose(1, 2, 0)),
    )
    return lambda: ((a, b.squeeze(1)) for a, b in loader)


def _ffcv(work: Path, task: str, fields: Any, pipelines: Any, form: Callable[[np.ndarray], np.ndarray]) -> Any:
    from ffcv.loader import Loader, OrderOption
    from ffcv.writer import DatasetWriter

    x, y = arrays(work, task)

    class Source:
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
            return form(x[row]), int(y[row])

    path = work / f"{task}.beton"
    if not path.exists():
        DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Source())
    return Loader(
        str(path),
        batch_size=BATCH,
        num_workers=WORKERS,
        order=OrderOption.RANDOM,
        drop_last=True,
        os_cache=True,
        pipelines=pipelines,
    )


def ours_augment(work: Path) -> Epoch:
    from datahub.tensor.draws import Draws
    from datahub.tensor.presets import Moments, preset

    transform = preset("cifar_train", lambda: Moments(CIFAR_MEAN, CIFAR_STD))
    x, y = map(torch.from_numpy, arrays(work, "cifar"))

    def epoch() -> Iterator[Any]:
        for first in range(0, 40 * BATCH, BATCH):
            draws = Draws(0, 0, np.arange(first, first + BATCH))
            yield transform(x[first : first + BATCH], None, draws), y[first : first + BATCH]

    return epoch


def torchvision_augment(work: Path) -> Epoch:
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(CIFAR_MEAN, CIFAR_STD),
        ]
    )
    x, y = map(torch.from_numpy, arrays(work, "cifar"))

    def epoch() -> Iterator[Any]:
        for first in range(0, 10 * BATCH, BATCH):
            yield torch.stack([transform(image) for image in x[first : first + BATCH]]), y[first : first + BATCH]

    return epoch


ROWS: dict[str, dict[str, Callable[[Path], Epoch]]] = {
    "mnist": {
        "datahub": ours_mnist,
        "datahub, num_workers=0": inline_mnist,
        "limit": limit_mnist,
        "limit, one thread": limit_mnist,
        "ffcv": ffcv_mnist,
        "ffcv, one thread": ffcv_mnist,
    },
    "cifar": {"datahub": ours_cifar, "ffcv": ffcv_cifar, "ffcv, one thread": ffcv_cifar},
    "augment": {"datahub": ours_augment, "torchvision": torchvision_augment},
}
GOALS = {("mnist", "limit"): 0.9, ("mnist", "ffcv"): 1.0, ("cifar", "ffcv"): 1.0, ("augment", "torchvision"): 5.0}
EPOCHS = {"mnist": 1, "cifar": 2, "augment": 1}


def rate(epochs: Iterable[Iterable[Any]], shape: tuple[int, ...]) -> float:
    """Images a second, the form of every batch checked."""
    count = spent = 0.0
    for epoch in epochs:
        began = 0.0
        for number, (images, labels) in enumerate(epoch, 1):
            assert images.shape == (BATCH, *shape) and images.dtype == torch.float32 and labels.shape == (BATCH,)
            if number == AHEAD:
                began = time.perf_counter()
            elif number > AHEAD:
                count += len(images)
        spent += time.perf_counter() - began
    return count / spent


def serve(task: str, row: str, work: Path) -> None:
    """Measure once for each line that comes in."""
    torch.set_num_threads(1 if task == "augment" or "one thread" in row else WORKERS)
    epoch = ROWS[task][row](work)
    shape = SHAPES.get(task, SHAPES["cifar"])
    rate([epoch()], shape)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(rate((epoch() for _ in range(EPOCHS[task])), shape), flush=True)


def prepare(work: Path) -> None:
    import datahub
    from datahub.core.errors import NotInStore

    work.mkdir(parents=True, exist_ok=True)
    try:
        datahub.open(CIFAR)
    except NotInStore:
        noise = np.random.default_rng(0)
        with datahub.Writer(
            CIFAR, fields={"image": "image", "label": "label"}, classes=[str(i) for i in range(10)]
        ) as out:
            for row in range(50_000):
                coarse = noise.integers(0, 256, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
                out.write(split="train", source=str(row), image=coarse, label=row % 10)
    for task, ref in (("mnist", "mnist"), ("cifar", CIFAR)):
        if not (work / f"{task}-y.npy").exists():
            with datahub.StreamingLoader(ref, batch_size=BATCH, residency="stream") as loader:
                batches = [(batch["image"].numpy(), batch["label"].numpy()) for batch in loader]
            np.save(work / f"{task}-x.npy", np.concatenate([images for images, _ in batches]))
            np.save(work / f"{task}-y.npy", np.concatenate([labels for _, labels in batches]))


def measure(task: str, pythons: dict[str, str], work: Path, rounds: int) -> None:
    children = {}
    for row, python in pythons.items():
        command = [python, __file__, "--work", str(work), "--child", task, row]
        children[row] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert children[row].stdout.readline() == "ready\n", f"{row} did not start"
    rates: dict[str, list[float]] = {row: [] for row in children}
    for _ in range(rounds):
        for row, child in children.items():
            child.stdin.write("go\n")
            child.stdin.flush()
            rates[row].append(float(child.stdout.readline()))
    for row, child in children.items():
        child.communicate()
        facts = {"task": task, "loader": row, "batch": BATCH, "workers": WORKERS}
        print(json.dumps({**facts, "images_per_s": [round(each) for each in rates[row]]}), flush=True)
    medians = {row: statistics.median(found) for row, found in rates.items()}
    for row in rates:
        if not row.startswith("datahub"):
            ratio = round(medians["datahub"] / medians[row], 2)
            facts = {"figure": f"{task}, times {row}", "ratio": ratio, "goal": GOALS[task, row.partition(",")[0]]}
            print(
                json.dumps({**facts, "images_per_s": {each: round(medians[each]) for each in ("datahub", row)}}),
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--task", action="append", choices=sorted(ROWS))
    parser.add_argument("--ffcv-python", help="a Python that has FFCV; without it, its rows are left out")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.child:
        serve(*o.child, o.work)
        return
    prepare(o.work)
    for task in o.task or ROWS:
        pythons = {row: o.ffcv_python if row.startswith("ffcv") else sys.executable for row in ROWS[task]}
        measure(task, {row: python for row, python in pythons.items() if python}, o.work, o.rounds)


if __name__ == "__main__":
    main()
