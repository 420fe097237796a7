"""The whole line on one machine: get, pack, verify, stream, train for at most a minute, evaluate, draw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torchvision.transforms import v2

from datahub.acquire import Verified
from datahub.core.errors import BadArgument
from datahub.core.events import Listener, Note, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.loader.streaming import StreamingLoader
from datahub.pack import fetch
from datahub.store.dataset import Dataset
from datahub.store.find import find
from datahub.store.verify import verify
from datahub.tensor.sheet import contact_sheet, save_png
from datahub.train.model import accuracy, small_net

SIZE = 48
"""Pixels a side that images of varying size are brought to."""


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    seconds: float
    amount: int
    unit: str

    @property
    def rate(self) -> float:
        return self.amount / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Report:
    """What a demo run saw; ``stages`` in the order they ran."""

    ref: str
    stages: list[Stage] = field(default_factory=list)
    accuracy: float = 0.0
    epochs: float = 0.0
    sheet: Path | None = None

    @contextmanager
    def timing(self, name: str, unit: str) -> Iterator[Callable[[int], None]]:
        counted = [0]
        began = time.perf_counter()

        def count(amount: int) -> None:
            counted[0] += amount

        yield count
        self.stages.append(Stage(name, time.perf_counter() - began, counted[0], unit))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the demo trains. ``budget`` ends training early on slow machines, after a whole step."""

    epochs: int = 6
    budget: float = 55.0
    batch: int = 64
    rate: float = 4e-3
    seed: int = 0


def run(
    ref: Ref, settings: Settings, sheet: Path, *, listener: Listener = ignore, recipe: Recipe | None = None
) -> Report:
    """Run every stage on ``ref`` (fetched and packed first if need be) and write the contact sheet."""
    wanted = fetch.target(ref, settings)
    report = Report(str(wanted.ref))
    _prepare(wanted, settings, report, listener)
    located = find(settings, wanted.ref)
    with report.timing("verify", "bytes") as count:
        verify(located, listener=listener)
        count(located.record.bytes())
    dataset = open_dataset(wanted.ref, settings)
    train_split, test_split = _splits(dataset)
    with (
        report.timing("stream", "images") as count,
        _loader(dataset, train_split, settings, Recipe(batch=256), training=True) as loader,
    ):
        for batch in loader:
            count(len(batch["label"]))
    recipe = recipe or _recipe(len(dataset[train_split]))
    model = _train(dataset, train_split, settings, recipe, report, listener)
    _evaluate(model, dataset, test_split, settings, recipe, report)
    _draw(dataset, test_split, sheet)
    report.sheet = sheet
    return report


def _recipe(samples: int) -> Recipe:
    """More samples need fewer passes: about 64,000 training images in all."""
    return Recipe(epochs=max(1, min(8, round(64_000 / samples))), batch=64 if samples < 20_000 else 128)


def _prepare(wanted: fetch.Target, settings: Settings, report: Report, listener: Listener) -> None:
    if fetch.present(wanted, settings, listener):
        listener(Note("demo", f"{wanted.ref} is packed already"))
        return
    files: tuple[Verified, ...] = ()
    if wanted.manifest.files:
        with report.timing("download", "bytes") as count:
            files = fetch.download(wanted, settings, fetch.Options(), listener)
            count(sum(each.path.stat().st_size for each in files))
    with report.timing("pack", "images") as count:
        fetch.pack_files(wanted, files, settings, fetch.Options(), listener)
        count(sum(wanted.manifest.splits_of(wanted.variant).values()))


def _splits(dataset: Dataset) -> tuple[str, str]:
    names = list(dataset.splits)
    test = next((name for name in ("test", "val", "validation") if name in names), None)
    if "train" not in names or test is None or not dataset.classes:
        reason = f"the demo needs a labelled train and test split; this has {', '.join(names)}"
        raise BadArgument("ref", str(dataset.ref), reason, "try shapes, mnist or cifar10")
    return "train", test


def _loader(dataset: Dataset, split: str, settings: Settings, recipe: Recipe, *, training: bool) -> StreamingLoader:
    fixed = dataset.record.fields["image"].shape
    small = fixed is not None and max(fixed[:2]) <= SIZE
    steps: list[nn.Module] = [v2.Resize((SIZE, SIZE), antialias=True)]
    return StreamingLoader(
        dataset.ref,
        split,
        batch_size=recipe.batch if training else 256,
        shuffle=training,
        seed=recipe.seed,
        drop_last=training and len(dataset[split]) > recipe.batch,
        transform="normalize" if small else v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)]),
        settings=settings,
    )


def _train(
    dataset: Dataset, split: str, settings: Settings, recipe: Recipe, report: Report, listener: Listener
) -> nn.Module:
    torch.manual_seed(recipe.seed)
    model: nn.Module | None = None
    began = time.monotonic()
    with report.timing("train", "images") as count, _loader(dataset, split, settings, recipe, training=True) as loader:
        steps = recipe.epochs * len(loader)
        for epoch in range(recipe.epochs):
            for batch in loader:
                images = _scaled(batch["image"])
                if images.shape[-1] == SIZE and torch.rand(()) < 0.5:
                    images = images.flip(-1)
                if model is None:
                    model = small_net(images.shape[1], len(dataset.classes), images.shape[-1])
                    model = model.to(memory_format=torch.channels_last)
                    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=1e-2)
                    anneal = annealing(recipe, steps, began)
                    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
                progress = anneal(optimizer)
                optimizer.zero_grad(set_to_none=True)
                criterion(model(images), batch["label"]).backward()
                optimizer.step()
                count(len(images))
                report.epochs += len(images) / len(dataset[split])
                if progress >= 1:
                    said = f"ended after {recipe.budget:.0f} s, in epoch {epoch + 1} of {recipe.epochs}"
                    listener(Note("train", said))
                    return _finished(model)
    return _finished(model)


def annealing(recipe: Recipe, steps: int, began: float) -> Callable[[torch.optim.Optimizer], float]:
    """Sets the learning rate before each step and returns the progress, 0 to 1: of the steps, or of the time if that
    is further on, so that a slow machine trains less but still anneals to the end.
    """
    taken = [0]

    def set_rate(optimizer: torch.optim.Optimizer) -> float:
        taken[0] += 1
        progress = min(1.0, max(taken[0] / (steps + 1), (time.monotonic() - began) / recipe.budget))
        warm = min(1.0, progress / 0.15)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * warm * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-6
        return progress

    return set_rate


def _finished(model: nn.Module | None) -> nn.Module:
    assert model is not None, "a split has at least one sample, so at least one batch"
    return model.eval()


def _scaled(images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _evaluate(
    model: nn.Module, dataset: Dataset, split: str, settings: Settings, recipe: Recipe, report: Report
) -> None:
    right = total = 0
    with report.timing("test", "images") as count, _loader(dataset, split, settings, recipe, training=False) as loader:
        for batch in loader:
            right += accuracy(model, _scaled(batch["image"]), batch["label"])
            total += len(batch["label"])
        count(total)
    report.accuracy = right / total


def _draw(dataset: Dataset, split: str, path: Path, count: int = 48) -> None:
    samples = [dataset[split][i] for i in range(min(count, len(dataset[split])))]
    captions = [dataset.classes[sample["label"]] for sample in samples]
    save_png(contact_sheet([sample["image"] for sample in samples], captions), path)
