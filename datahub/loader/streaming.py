"""`StreamingLoader`: batches of a packed split, in an order that is a formula, resumable at any batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from typing import Any, Literal

import torch

from datahub.core.events import Listener, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings, resolve
from datahub.loader import arguments
from datahub.loader.announcing import Announced
from datahub.loader.assemble import Assembler
from datahub.loader.counters import Counters
from datahub.loader.course import Asked, Course
from datahub.loader.device import CudaOptions, backend_of
from datahub.loader.device_assembler import DeviceAssembler
from datahub.loader.holding import Holding
from datahub.loader.looping import Looping
from datahub.loader.members import open_members
from datahub.loader.opening import open_or_fetch
from datahub.loader.process.staff import Staff
from datahub.loader.quarantine import Quarantine
from datahub.loader.recipe import Supplies, Transform, recipe_of
from datahub.loader.resident import Residency
from datahub.loader.ring import Ring
from datahub.loader.sources import Where, ranks_here, shard_source, source_of
from datahub.loader.topology import Topology
from datahub.loader.workers import default_workers
from datahub.order.formula import OrderOptions
from datahub.store.selection import Selection
from datahub.stream.mix import Mix, Weighted
from datahub.tensor.clips import Clip
from datahub.tensor.device.lanes import Backend
from datahub.tensor.mixing import Mixing


class StreamingLoader(Looping):
    """Iterate over batches of ``split`` of ``ref``. Every sample comes exactly once an epoch, on any world size.

    A batch is a dict: ``image`` uint8 (B, C, H, W) where the dataset's images have one shape, else a list of B tensors
    (C, H, W); ``label`` and ``index`` int64 (B,); ``valid`` bool (B,); ``n_global``, an int. ``fields`` gives tuples of
    the named fields instead, among them ``key``, ``source``, the dataset's int scalars (int64), and ``encoded``: the
    images' bytes as a list, decoded only if ``image`` is named, too.

    ``transform`` is a preset's name, a transform of `datahub.transforms` (once a batch), or a callable that takes one
    uint8 (C, H, W) tensor; ``map`` takes a sample's dict (image, boxes and all) and returns another; ``collate`` takes
    the list of sample dicts in place of what stacks them; ``batch_transform`` takes the batch, or is a mixing (`MixUp`,
    `CutMix`, `RandomMix`), which makes ``label`` float32 (B, classes). All of them run in worker threads.
    `datahub.transforms.Decode` in front of a transform turns images upright by their EXIF orientation.

    Boxes, labels of objects, masks and keypoints are lists, a `torchvision.tv_tensors` or tensor a sample, and follow
    what a transform of `datahub.transforms` does to the images; another ``transform`` is refused beside them.

    ``clip``, a `datahub.transforms.Clip`, shows a field of type ``video`` as frames, uint8 (B, T, 3, H, W) where all
    clips of a batch have one size, else a list of B; without it videos are bytes, and shown on request.

    ``where`` ("label in (1, 2) and width >= 256"; classes by name too), ``part`` (a range of key hashes, or several)
    and ``max_samples`` choose samples, in this order. ``ref`` may be a `datahub.mix`, `balanced` or `weighted`.

    ``source`` is the URL (any that fsspec knows) or folder that ``datahub export`` wrote, read in place of the store.
    Blocks of its shards are verified and kept in ``cache_dir``, at most ``cache_limit`` bytes (``"500GB"``) of them,
    for all processes of the machine; ``listener`` hears where that cannot be done. An origin that does not answer
    within ``timeout`` is reported by name.

    ``source`` may also be WebDataset shards that were not packed by datahub: a folder of them, or paths and URLs with
    ``{000..146}``, commas and ``*``; ``ref`` is then what they are called, or ``wds:SHARDS`` itself. They are scanned
    when they are first opened, remote ones whole; the index is kept under the home for as long as they are the same.

    Each ``for`` runs the current epoch from the current position and leaves the loader at the next epoch; a loop that
    was left early is over, and the next ``for`` begins the epoch after it. Only one loop runs at a time: a newer one
    ends the older. The topology is resolved when it is first needed (the first loop, ``len`` or state).

    ``on_error="quarantine"`` goes on past samples that cannot be read or decoded: such a row is black and not
    ``valid``, every other is as it would be, and `datahub.loader.quarantine` says what is recorded where.

    ``workers="process"`` makes the same batches in ``num_workers`` processes, each a whole one, in memory shared with
    the caller: for machines of many cores, and for callables that hold the interpreter. As many as there are processes,
    and at least ``prefetch``, are then ahead. The processes start with the first loop and end with the loader.
    Callables are sent to them, so they must be what a module defines; those of the script that runs need the usual
    ``if __name__ == "__main__":`` around what the script does.

    ``residency="auto"`` decodes small sets of one shape once, into files under the home that later loops and processes
    map; ``"host"`` does so whatever the size, ``"device"`` keeps the pixels in memory whole, ``"stream"`` decodes each
    batch. All give the same batches, and `explain` says what was chosen and why.

    ``residency="encoded"`` reads all that batches need of the shards once, when the first loop begins, and holds it: on
    the device where there is one, else in this process's memory, which its worker processes share. Later epochs read no
    disk and no network; images are decoded for every batch. It is for machines whose disk, network or page cache
    cannot hold or feed the set and whose card has tens of gigabytes free: a batch is gathered there and comes back to
    the host in one copy, for decoders read bitstreams there. ``"auto"`` never chooses it, what does not fit is refused,
    and ``listener`` hears how far it is read.

    ``device="cuda"`` (this rank's card, ``"cuda:1"`` or a `datahub.loader.device.CudaOptions`) gives batches whose
    tensors are all there: JPEGs are cut in their bitstream, decoded and augmented on the card, in streams of the
    loader's own; nothing waits for the caller's. Draws and pixels are those of the host, but for what nvJPEG decodes
    otherwise than libjpeg (a few levels; more at edges of colour, where it does not interpolate chroma).

    Raises `NotInStore`, `UnknownSplit`, `BadArgument`, `NotYetSupported`; loops raise `DamagedSample`, `StoreDamaged`,
    `WorkerDied`, and what the callables raise.
    """

    def __init__(
        self,
        ref: str | Ref | Mix | Weighted,
        split: str = "train",
        *,
        batch_size: int | None = None,
        global_batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        static_shapes: bool = False,
        transform: Transform | None = None,
        batch_transform: Callable[[Any], Any] | Mixing | None = None,
        collate: Callable[[list[dict[str, Any]]], Any] | None = None,
        map: Callable[[dict[str, Any]], Any] | None = None,
        clip: Clip | None = None,
        fields: Sequence[str] | None = None,
        device: str | torch.device | CudaOptions | Backend = "cpu",
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
        num_workers: int | None = None,
        workers: Literal["thread", "process"] = "thread",
        prefetch: int = 2,
        where: str | None = None,
        part: tuple[float, float] | Sequence[tuple[float, float]] = (0.0, 1.0),
        max_samples: int | None = None,
        source: str | PathLike[str] | None = None,
        cache_dir: str | PathLike[str] | None = None,
        cache_limit: int | str | None = None,
        download: bool = False,
        residency: Literal["auto", "stream", "host", "device", "encoded"] = "auto",
        order: OrderOptions | None = None,
        on_error: Literal["raise", "quarantine"] = "raise",
        topology: Topology | None = None,
        timeout: float = 600,
        listener: Listener = ignore,
        settings: Settings | None = None,
    ) -> None:
        backend = backend_of(device, os.environ)
        processes = arguments.process_workers(workers, on_cpu=backend is None)
        arguments.batch_sizes(batch_size, global_batch_size)
        arguments.callables(batch_transform=batch_transform, collate=collate, map=map)
        shuffle, seed = bool(shuffle), arguments.integer("seed", seed)
        options = arguments.order_options(order)
        timeout = arguments.seconds("timeout", timeout)
        prefetch = arguments.whole("prefetch", prefetch, least=1)
        workers_here = default_workers(os.environ, processes=processes) if num_workers is None else num_workers
        threads = arguments.whole("num_workers", workers_here, least=0)
        set_aside = arguments.on_error(on_error, arguments.field_names(fields))
        selection = Selection.of(where, part, max_samples)
        settings = resolve() if settings is None else settings
        source = source_of(ref, source)
        place = Where.of(settings, source, cache_dir, cache_limit, timeout, listener)
        opened = partial(open_or_fetch, settings=settings, download=download, where=place, asked_for=source is not None)
        members = open_members(ref, split, selection, options, opened)
        found = members.split
        recipe = recipe_of(
            found,
            fields=fields,
            transform=transform,
            batch_transform=batch_transform,
            collate=collate,
            map=map,
            clip=clip,
            dtype=dtype,
            channels_last=channels_last,
        )
        readers, scattered = threads if processes else 1, shuffle and residency != "encoded"
        shards = members.source(
            partial(shard_source, environ=os.environ, options=options, shuffle=scattered, readers=readers)
        )
        quarantine = Quarantine.of(found, settings.home) if set_aside else None
        supplies = Supplies(found, shards, recipe, Counters(), seed, quarantine)
        asked = Asked(
            batch_size=batch_size,
            global_batch_size=global_batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=bool(drop_last),
            static_shapes=bool(static_shapes),
            options=options,
            topology=topology,
            mixing=recipe.mixing,
        )
        assembler = Assembler(supplies) if backend is None else DeviceAssembler(supplies, Ring(backend, timeout))
        resident = Residency(
            residency,
            found,
            shards,
            settings,
            recipe,
            workers=threads,
            timeout=timeout,
            holding=Holding(
                members.population,
                assembler,
                shards,
                workers=threads,
                timeout=timeout,
                backend=backend,
                name=members.name,
                listener=listener,
            ),
            ranks=ranks_here(os.environ),
            backend=backend,
        )
        super().__init__(
            supplies,
            Course(members, asked),
            assembler,
            resident,
            Staff(supplies.counters, quarantine) if processes and threads else None,
            Announced(members, shards, resident, aloud=settings.announce),
            workers=threads,
            prefetch=prefetch,
            timeout=timeout,
        )
