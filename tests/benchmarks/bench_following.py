"""Boxes, keypoints and masks that follow their images, beside torchvision's v2 transforms, alternately in one run.

    python tests/benchmarks/bench_following.py [--rounds 5]

Batches of 64 samples of COCO's size (640 x 480) with 8 objects of 17 keypoints each, masks of the objects and of
classes. Only the annotations are moved, on one thread; torchvision is called a sample at a time, as it draws.
Prints one JSON line a row; goal: never slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from datahub import transforms as T
from datahub.store.record import FieldSpec
from datahub.tensor.annotations import wrap
from datahub.tensor.draws import Draws
from datahub.tensor.following import follow
from datahub.tensor.geometry import stages

BATCH, SIZE, OBJECTS = 64, (480, 640), 8
SPECS = {
    "boxes": FieldSpec(type="boxes", extension="", format="xyxy"),
    "points": FieldSpec(type="keypoints", extension=""),
    "masks": FieldSpec(type="masks", extension=""),
    "mask": FieldSpec(type="mask", extension=""),
}
SHOWN = {"boxes, keypoints": ("boxes", "points"), "with masks": tuple(SPECS)}
AFFINE: dict[str, Any] = {"degrees": 30, "translate": (0.1, 0.1), "scale": (0.8, 1.2), "shear": 10}
CHAINS: dict[str, tuple[list[T.BatchTransform], list[Any]]] = {
    "crop to 224, flip": (
        [T.RandomResizedCrop(224), T.RandomHorizontalFlip()],
        [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()],
    ),
    "crop to 224, flip, affine": (
        [T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.RandomAffine(**AFFINE)],
        [v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.RandomAffine(**AFFINE)],
    ),
    "rotation": ([T.RandomRotation(30)], [v2.RandomRotation(30)]),
}


def sample(rng: np.random.Generator) -> dict[str, Any]:
    height, width = SIZE
    corners = np.sort(rng.uniform(0, 1, (OBJECTS, 2, 2)), axis=1) * [width, height]
    return {
        "boxes": corners.reshape(OBJECTS, 4).astype(np.float32),
        "points": (rng.uniform(0, 1, (OBJECTS, 17, 2)) * [width, height]).astype(np.float32),
        "masks": (rng.random((OBJECTS, height, width)) < 0.3).astype(np.uint8),
        "mask": rng.integers(0, 80, SIZE, np.uint8),
    }


def measure(ours: T.BatchTransform, theirs: Any, samples: list[dict[str, Any]], rounds: int) -> tuple[float, float]:
    """Median seconds of a batch."""
    specs = {name: SPECS[name] for name in samples[0]}
    sizes = np.array([SIZE] * len(samples))
    typed = [{name: wrap(spec, each[name], SIZE) for name, spec in specs.items()} for each in samples]
    seconds: tuple[list[float], list[float]] = ([], [])
    for epoch in range(rounds):
        begun = time.perf_counter()
        draws, values = Draws(0, epoch, np.arange(len(samples))), [dict(each) for each in samples]
        follow(specs, values, sizes, stages(ours, sizes, draws))
        seconds[0].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        for each in typed:
            theirs(each)
        seconds[1].append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    samples = [sample(rng) for _ in range(BATCH)]
    for shown, names in SHOWN.items():
        some = [{name: each[name] for name in names} for each in samples]
        for chain, (ours, theirs) in CHAINS.items():
            mine, peers = measure(T.Compose(ours), v2.Compose(theirs), some, rounds)
            row = {"fields": shown, "transform": chain, "us_a_sample": round(mine / BATCH * 1e6, 1)}
            row |= {"torchvision_us_a_sample": round(peers / BATCH * 1e6, 1), "ratio": round(peers / mine, 2)}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
