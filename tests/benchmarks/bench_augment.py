"""Batched augmentations beside torchvision's v2 transforms, called once a sample and stacked, alternately in one run.

    python tests/benchmarks/bench_augment.py [--rounds 5] [--only NAME ...] [--threads 1]

Batches of 256 at 224 x 224 and of 512 at 32 x 32, uint8 in memory (floats for what follows Normalize), photographs'
smoothness imitated. Ours draws for each sample, as does torchvision called a sample at a time; MixUp and CutMix of
torchvision draw once a batch. Both use as many torch threads, by default one, as a loader's worker threads do.
Crop, flip and normalise together: ``bench_small.py --task augment``. Prints one JSON line a row; goal: never slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from datahub.stream.heap import keep_freed_memory
from datahub.tensor import colour, tables
from datahub.tensor.draws import Draws
from datahub.tensor.mixing import partners
from datahub.tensor.pieces import in_pieces
from datahub.tensor.transforms import (
    ColorJitter,
    CutMix,
    GaussianBlur,
    MixUp,
    RandAugment,
    RandomAffine,
    RandomErasing,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
    TrivialAugmentWide,
)

BATCHES = ((256, 224), (512, 32))
CLASSES = 1000
BILINEAR = InterpolationMode.BILINEAR
Run = Callable[[], Any]

PAIRS: dict[str, tuple[Any, Any]] = {
    "brightness": (ColorJitter(brightness=0.4), v2.ColorJitter(brightness=0.4)),
    "contrast": (ColorJitter(contrast=0.4), v2.ColorJitter(contrast=0.4)),
    "saturation": (ColorJitter(saturation=0.4), v2.ColorJitter(saturation=0.4)),
    "hue": (ColorJitter(hue=0.1), v2.ColorJitter(hue=0.1)),
    "ColorJitter": (ColorJitter(0.4, 0.4, 0.4, 0.1), v2.ColorJitter(0.4, 0.4, 0.4, 0.1)),
    "RandomGrayscale, p=0.2": (RandomGrayscale(0.2), v2.RandomGrayscale(0.2)),
    "RandomGrayscale, p=1": (RandomGrayscale(1.0), v2.RandomGrayscale(1.0)),
    "GaussianBlur, 5": (GaussianBlur(5), v2.GaussianBlur(5)),
    "RandomHorizontalFlip": (RandomHorizontalFlip(), v2.RandomHorizontalFlip()),
    "RandomVerticalFlip": (RandomVerticalFlip(), v2.RandomVerticalFlip()),
    "RandomRotation": (RandomRotation(30), v2.RandomRotation(30)),
    "RandomRotation, bilinear": (RandomRotation(30, "bilinear"), v2.RandomRotation(30, BILINEAR)),
    "RandomAffine": (
        RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 10, fill=None),
        v2.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 10, fill=None),
    ),
    "RandAugment": (RandAugment(), v2.RandAugment()),
    "TrivialAugmentWide": (TrivialAugmentWide(), v2.TrivialAugmentWide()),
}
STRENGTHS: dict[str, tuple[Any, Any, tuple[float, float] | None, bool]] = {
    "posterize": (tables.posterize, lambda image, bits: F.posterize(image, int(bits)), (2, 7), True),
    "solarize": (tables.solarize, F.solarize, (0, 255), True),
    "sharpness": (colour.sharpness, F.adjust_sharpness, (0, 2), False),
    "autocontrast": (tables.autocontrast, F.autocontrast, None, True),
    "equalize": (tables.equalize, F.equalize, None, True),
}


def pictures(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((count, 3, 8, 8), generator=generator) * 220
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (smooth + 30 * torch.rand(smooth.shape, generator=generator)).to(torch.uint8)


def rows(count: int, side: int) -> Iterator[tuple[str, Run, Run]]:
    """Name, ours, torchvision's: both make a batch of the same batch."""
    images, draws = pictures(count, side), Draws(0, 0, np.arange(count))
    for name, (ours, theirs) in PAIRS.items():
        yield name, lambda o=ours: o(images, None, draws), lambda t=theirs: torch.stack([t(each) for each in images])
    for name, (kernel, function, bounds, whole) in STRENGTHS.items():
        numbers = [] if bounds is None else [torch.linspace(*bounds, count).round().double()]
        own = [[float(each[row]) for each in numbers] for row in range(count)]
        yield (
            name,
            lambda k=kernel, n=numbers, w=whole: in_pieces(k, images, n, whole=w),
            lambda f=function, o=own: torch.stack([f(image, *given) for image, given in zip(images, o, strict=True)]),
        )
    floats = images.float() / 255
    erase, erasing = RandomErasing(0.5), v2.RandomErasing(0.5)
    yield (
        "RandomErasing, floats",
        lambda: erase(floats, None, draws),
        lambda: torch.stack([erasing(image) for image in floats]),
    )
    labels, partner = torch.arange(count) % CLASSES, partners(np.arange(count), np.ones(count, np.bool_), 2)
    for kind, peer in ((MixUp, v2.MixUp), (CutMix, v2.CutMix)):
        mixing, mixed = kind(1.0, CLASSES), peer(alpha=1.0, num_classes=CLASSES)
        yield (
            f"{kind.__name__}, floats, a batch",
            lambda m=mixing: m(floats, labels, m.plan(draws, partner)),
            lambda m=mixed: m(floats, labels),
        )


def seconds(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(name: str, count: int, side: int, ours: Run, theirs: Run, rounds: int) -> float:
    ours(), theirs()
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    mine, other = (statistics.median(each) for each in zip(*times, strict=True))
    facts = {
        "op": name,
        "batch": count,
        "side": side,
        "ms": round(mine * 1e3, 2),
        "torchvision_ms": round(other * 1e3, 2),
    }
    print(json.dumps({**facts, "ratio": round(other / mine, 2), "goal": 1.0}), flush=True)
    return other / mine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int, action="append", help="only batches of this side")
    parser.add_argument("--only", action="append", help="only rows whose name begins so")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    keep_freed_memory()  # as a loader does; it serves both
    ratios = []
    for count, side in BATCHES:
        if o.side and side not in o.side:
            continue
        for name, ours, theirs in rows(count, side):
            if not o.only or any(name.startswith(each) for each in o.only):
                ratios.append(measure(name, count, side, ours, theirs, o.rounds))
    print(json.dumps({"figure": "slowest row, times torchvision", "ratio": round(min(ratios), 2), "goal": 1.0}))


if __name__ == "__main__":
    main()
