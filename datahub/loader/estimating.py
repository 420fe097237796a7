"""The facts an estimate starts from: a packed variant's record, else its manifest; and what an image costs here."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from time import perf_counter, process_time

import numpy as np
from PIL import Image, ImageFilter

from datahub.core.errors import BadArgument, NotInStore, UnknownSplit
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.estimate import Facts
from datahub.loader.streaming import StreamingLoader
from datahub.pack.fetch import of_manifest
from datahub.registry import Manifest, catalog
from datahub.store.find import Located, find
from datahub.tensor.decode import decode

PATIENCE = 0.5
"""Seconds that a measurement takes."""
BATCH = 32
BLOCK = 1000
"""Samples of an order block, where nothing is packed yet."""
PHOTO = (500, 375)
"""(width, height) of the drawn picture that stands for photos nobody has here."""
SHAPE = re.compile(r"(\d+)x(\d+)(?:x(\d+))?")
"""A fixed size in a manifest's words: ``28x28x1 uint8``."""


def facts_of(
    ref: Ref, split: str, settings: Settings, *, augment: str | None = None, image_bytes: int | None = None
) -> Facts:
    """What is known of ``ref``. ``augment``: the preset whose work is counted; ``image_bytes``: instead of what is
    known of an image's size. Raises `UnknownDataset`, `UnknownSplit`, and `BadArgument` for what cannot be measured.
    """
    try:
        located = find(settings, ref)
    except NotInStore:
        return _from_manifest(ref, split, settings, augment, image_bytes)
    return _from_record(located, split, settings, augment, image_bytes)


def _from_record(
    located: Located, split: str, settings: Settings, augment: str | None, image_bytes: int | None
) -> Facts:
    splits = located.record.splits
    if split not in splits:
        raise UnknownSplit(str(located.ref), split, list(splits))
    entry = splits[split]
    sizes = {each.path: each.bytes for each in located.record.files}
    with StreamingLoader(
        located.ref, split, batch_size=min(BATCH, entry.samples), transform=augment, num_workers=0, settings=settings
    ) as loader:
        image = float(loader.split.locate["size"].mean())
        steps = len(loader)
        # Spread over the epoch, so that neighbours in the file are not all that is measured.
        seconds, count = measured(lambda turn: len(loader.at(0, turn * 7 % steps)["index"]))
    what = "read, decoded" + (f" and made ready by {augment}" if augment else "")
    return Facts(
        ref=str(located.ref),
        split=split,
        samples=entry.samples,
        packed=sum(sizes[each.path] for each in entry.shards),
        image=float(image_bytes or image),
        block=entry.block,
        known_from="its record",
        seconds=seconds * (image_bytes or image) / image,
        seconds_from=f"measured here on {count} of its images, {what}",
    )


def _from_manifest(ref: Ref, split: str, settings: Settings, augment: str | None, image_bytes: int | None) -> Facts:
    wanted = of_manifest(catalog(settings).find(ref), ref.variant)
    manifest, base = wanted.manifest, wanted.base
    splits = manifest.splits_of(base)
    if split not in splits:
        raise UnknownSplit(str(wanted.ref), split, list(splits))
    if augment is not None:
        raise BadArgument("augment", augment, f"{wanted.ref} is not packed, so nothing can be made ready", "pack it")
    data, what = _drawn(manifest.image)
    image, known_from = _published(manifest, base, split)
    if image_bytes is not None or not image:
        image, known_from = (image_bytes, "--image-bytes") if image_bytes else (len(data), f"a drawn {what}: a guess")
    seconds, _ = measured(lambda _: len(decode(data)[:1]))
    if what == "JPEG":
        seconds *= image / len(data)
    how = "by encoded byte" if what == "JPEG" else "of the same size"
    return Facts(
        ref=str(wanted.ref),
        split=split,
        samples=splits[split],
        packed=round(image * splits[split]),
        image=float(image),
        block=BLOCK,
        known_from=known_from,
        seconds=seconds,
        seconds_from=f"decoding a drawn {what} here, {how}; it is not packed",
    )


def _published(manifest: Manifest, base: str, split: str) -> tuple[float, str]:
    """Mean bytes of an image by the published files (the split's own where they can be told; 0: unknown), and which."""
    files, splits = manifest.files_of(base), manifest.splits_of(base)
    own = [each.bytes for each in files if each.role == split or each.role.startswith(f"{split}-")]
    if own and None not in own:
        return sum(each or 0 for each in own) / splits[split], f"the published files of {split}"
    known = sum(each.bytes or 0 for each in files)
    return known / sum(splits.values()), "the published files of known size"


def measured(make: Callable[[int], int]) -> tuple[float, int]:
    """Processor seconds an image and how many were made; ``make`` takes its turn's number and says how many it made."""
    make(0)  # what is only done once
    began, ran, count, turn = perf_counter(), process_time(), 0, 0
    while not count or perf_counter() - began < PATIENCE:
        turn += 1
        count += make(turn)
    return (process_time() - ran) / count, count


def _drawn(words: str) -> tuple[bytes, str]:
    """An encoded image like those that a manifest's words describe, and its format."""
    fixed = SHAPE.search(words)
    width, height = (int(fixed[2]), int(fixed[1])) if fixed else PHOTO
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image, buffer = Image.fromarray(noise), io.BytesIO()
    if fixed:
        image.save(buffer, "PNG")
        return buffer.getvalue(), "PNG"
    image.filter(ImageFilter.GaussianBlur(0.7)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue(), "JPEG"
