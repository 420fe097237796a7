"""Opening a packed dataset: `datahub.open`, and `datahub.vision` for code written for torchvision."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from os import PathLike
from typing import Any

from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from datahub.core.errors import DamagedSample, NotInStore
from datahub.core.images import checked
from datahub.core.refs import Ref, is_shards
from datahub.core.settings import Settings, resolve
from datahub.loader.sources import Where, source_of
from datahub.store import dataset as store
from datahub.store.sample import Sample
from datahub.tensor.annotations import wrap
from datahub.tensor.decode import decode_image
from datahub.tensor.pillow import FORMATS


def image_channels(dataset: store.Dataset) -> int:
    """Channels that the dataset's images are decoded to: those of its fixed shape, else RGB."""
    shape = dataset.record.fields["image"].shape
    return shape[2] if shape else 3


def open_dataset(
    ref: str | Ref,
    settings: Settings | None = None,
    *,
    source: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    cache_limit: int | str | None = None,
    timeout: float = 600.0,
) -> store.Dataset:
    """Open a packed dataset; ``["train"][7]["image"]`` is a uint8 tensor (C, H, W). Raises `NotInStore`.

    ``source``: the URL or folder it stands at, in place of the store, or WebDataset shards; its tables are kept and
    its shards read through the block cache, see `StreamingLoader`. ``ref`` may be ``wds:train-{00..99}.tar``: shards
    themselves. Without ``settings`` they are resolved from the environment.
    """
    settings = resolve() if settings is None else settings
    source = source_of(ref, source)
    where = Where.of(settings, source, cache_dir, cache_limit, timeout)
    return _opened(ref, settings, where, asked_for=source is not None)


def _opened(ref: str | Ref, settings: Settings, where: Where | None, *, asked_for: bool) -> store.Dataset:
    """From the source that was asked for, or the store; from the settings' source what the store does not have."""
    wanted, where, asked_for = _named(ref, settings, where, asked_for)
    if where is not None and asked_for:
        dataset = where.open(wanted, settings)
    else:
        try:
            dataset = store.open_dataset(wanted, settings)
        except NotInStore:
            if where is None:
                raise
            dataset = where.named(wanted).open(wanted, settings)
    dataset.decode = partial(decode_image, channels=image_channels(dataset))
    dataset.wrap = wrap
    dataset.gather = _gather
    dataset.changed = _changed
    return dataset


def _named(ref: str | Ref, settings: Settings, where: Where | None, asked_for: bool) -> tuple[Ref, Where | None, bool]:
    """What is opened, where, and whether it is asked for there: shards (``wds:...``) are called after themselves."""
    if isinstance(ref, str) and is_shards(ref):
        from datahub.stream.foreign.naming import title

        return Ref(title(ref)), Where.of_shards(ref, settings, where), True
    return (Ref.parse(ref) if isinstance(ref, str) else ref), where, asked_for


def open_or_fetch(
    ref: str | Ref, settings: Settings, download: bool, where: Where | None = None, *, asked_for: bool = False
) -> store.Dataset:
    """Open ``ref``, at the settings' source too; with ``download`` fetch it first if it is not in the store."""
    where = where or Where.of(settings, None, None, None)
    try:
        return _opened(ref, settings, where, asked_for=asked_for)
    except NotInStore:
        if not download:
            raise
    from datahub.pack.fetch import fetch

    wanted = Ref.parse(ref) if isinstance(ref, str) else ref
    return open_dataset(fetch(wanted, settings).ref, settings)


def _gather(split: store.Split, indices: list[int]) -> Sequence[Mapping[str, Any]]:
    """Made where it is used: most datasets that are opened are never asked for batches by index."""
    from datahub.loader.mapped import Gather

    if not isinstance(found := split.dataset.gather, Gather):
        found = split.dataset.gather = Gather()
    return found(split, indices)


def _changed(split: store.Split, transform: Any, **options: Any) -> Any:
    from datahub.loader.mapped import Transformed

    return Transformed(split, transform, **options)


class Vision(TorchDataset[tuple[Any, Any]]):
    """A split as a map-style dataset of (PIL image, class number), as torchvision's are."""

    def __init__(
        self,
        split: store.Split,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.split, self.transform, self.target_transform = split, transform, target_transform
        self.classes = list(split.dataset.classes)
        self.class_to_idx = dict(split.dataset.class_to_idx)
        self._mode = "L" if image_channels(split.dataset) == 1 else "RGB"

    def __len__(self) -> int:
        return len(self.split)

    @cached_property
    def targets(self) -> list[int]:
        """The class number of every sample."""
        return self.split.locate["label"].tolist()  # type: ignore[no-any-return]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        sample = self.split[index]
        image: Any = self._image(sample)
        target: Any = sample.get("label", -1)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def _image(self, sample: Sample) -> Image.Image:
        try:
            return Image.open(io.BytesIO(checked(sample.encoded)), formats=FORMATS).convert(self._mode)
        except (OSError, SyntaxError, ValueError) as error:
            row = self.split.locate[sample.index]
            shard = self.split.shards[int(row["shard"])].name
            raise DamagedSample(shard, sample.key, int(row["offset"]), str(error)) from error

    def __repr__(self) -> str:
        return f"Vision({self.split!r})"


def vision(
    ref: str | Ref,
    split: str = "train",
    transform: Callable[[Any], Any] | None = None,
    target_transform: Callable[[Any], Any] | None = None,
    *,
    settings: Settings | None = None,
) -> Vision:
    """A drop-in for a torchvision dataset: ``len``, ``[i]`` -> (PIL image, int), ``classes``, ``targets``."""
    return Vision(open_dataset(ref, settings)[split], transform, target_transform)
