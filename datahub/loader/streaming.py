"""`StreamingLoader`: batches of a packed split, in an order that is a formula, resumable at any batch."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self

import torch

from datahub.core.errors import BadArgument, UsageError
from datahub.core.events import Listener, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings, resolve
from datahub.loader import arguments, clips
from datahub.loader.assemble import Assembler, Recipe
from datahub.loader.batch import state_of, with_state
from datahub.loader.counters import Counters
from datahub.loader.device import CudaOptions, backend_of
from datahub.loader.device_assembler import DeviceAssembler
from datahub.loader.explain import explanation
from datahub.loader.iteration import Iteration
from datahub.loader.listening import Listening, Stats, stats
from datahub.loader.members import open_members
from datahub.loader.mixing import check_groups, mixing_of
from datahub.loader.opening import open_or_fetch
from datahub.loader.process.kit import Kit
from datahub.loader.process.staff import Staff
from datahub.loader.quarantine import Quarantine
from datahub.loader.resident import Residency
from datahub.loader.ring import Ring
from datahub.loader.schedule import Plan, Schedule
from datahub.loader.sources import Where, shard_source, source_of
from datahub.loader.topology import Topology, resolve_topology
from datahub.loader.workers import default_workers
from datahub.order.formula import OrderOptions
from datahub.store.dataset import Split
from datahub.store.selection import Selection
from datahub.stream.mix import Mix, Weighted
from datahub.stream.state import OrderParameters, State, restore
from datahub.tensor.clips import Clip
from datahub.tensor.decoding import Decode
from datahub.tensor.device.lanes import Backend
from datahub.tensor.mixing import Mixing
from datahub.tensor.presets import Moments
from datahub.tensor.transforms import BatchTransform

Transform = str | BatchTransform | Decode | Callable[[torch.Tensor], Any]


class StreamingLoader:
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
        residency: Literal["auto", "stream", "host", "device"] = "auto",
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
        self._batch_size, self._global_batch_size = batch_size, global_batch_size
        self._shuffle, self._seed = bool(shuffle), arguments.integer("seed", seed)
        self._drop_last, self._static_shapes = bool(drop_last), bool(static_shapes)
        self._options = arguments.order_options(order)
        self._given_topology = topology
        self._timeout = arguments.seconds("timeout", timeout)
        self._prefetch = arguments.whole("prefetch", prefetch, least=1)
        workers_here = default_workers(os.environ, processes=processes) if num_workers is None else num_workers
        self._workers = arguments.whole("num_workers", workers_here, least=0)
        set_aside = arguments.on_error(on_error, arguments.field_names(fields))
        selection = Selection.of(where, part, max_samples)
        settings = resolve() if settings is None else settings
        source = source_of(ref, source)
        place = Where.of(settings, source, cache_dir, cache_limit, self._timeout, listener)
        asked = source is not None
        opened = partial(open_or_fetch, settings=settings, download=download, where=place, asked_for=asked)
        self._members = open_members(ref, split, selection, self._options, opened)
        self.split: Split = self._members.split
        self.dataset = self.split.dataset
        decoding, shown = Decode.of(transform), arguments.field_names(fields)
        self.recipe = Recipe(
            fields=shown,
            transform=arguments.image_transform(decoding.then, dtype, self._moments),
            orient=decoding.orient,
            batch_transform=None if isinstance(batch_transform, Mixing) else batch_transform,
            mixing=mixing_of(batch_transform, shown, self.dataset.record.fields, collate),
            collate=collate,
            map=map,
            clip=clips.bound(clip, self.dataset.record.fields, shown),
            dtype=dtype,
            channels_last=bool(channels_last),
        )
        self._counters = Counters()
        readers = self._workers if processes else 1
        self._source = self._members.source(
            partial(shard_source, environ=os.environ, options=self._options, shuffle=self._shuffle, readers=readers)
        )
        quarantine = Quarantine.of(self.split, settings.home) if set_aside else None
        self._staff = Staff(self._counters, quarantine) if processes and self._workers else None
        parts = (self.split, self._source, self.recipe, self._counters)
        self._assembler: Assembler
        if backend is None:
            self._assembler = Assembler(*parts, seed=self._seed, quarantine=quarantine)
        else:
            ring = Ring(backend, self._timeout)
            self._assembler = DeviceAssembler(*parts, ring, seed=self._seed, quarantine=quarantine)
        self._residency = Residency(
            residency,
            self.split,
            self._source,
            settings,
            self.recipe,
            workers=self._workers,
            timeout=self._timeout,
            backend=backend,
        )
        self._epoch, self._position, self._begun = 0, 0, False
        self._loop: weakref.ref[Iteration] | None = None
        self._listening: Listening | None = None
        self._closed = False

    # -- iterating ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return len(self._schedule)

    def __iter__(self) -> Iterator[Any]:
        return self.share()

    def share(self, first: int = 0, every: int = 1) -> Iterator[Any]:
        """A loop over some of this rank's batches: ``first`` batches from where it would begin, and ``every``-th then.

        For processes that share the work of a rank; a `for` over the loader takes them all.
        """
        self._check_open()
        self._retire("this loop was ended by a newer one over the same loader")
        self._counters.after_fork()
        if self._begun:
            self._move(self._epoch + 1, 0)
        self._begun = True
        batch = self._schedule.plan.batch
        self._assembler.reside(self._residency.open())
        team = None if self._staff is None else self._staff.hired(self._kit)
        loop = Iteration(
            self._schedule,
            self._assembler,
            self._epoch,
            self._position + first * batch,
            workers=self._workers,
            prefetch=self._prefetch,
            timeout=self._timeout,
            between=(every - 1) * batch,
            team=team,
        )
        self._loop = weakref.ref(loop)
        return self._batches(loop)

    def _batches(self, loop: Iteration) -> Iterator[Any]:
        try:
            while True:
                self._counters.asked(loop.ready)
                found = next(loop, None)
                if found is None:
                    break
                self._counters.received()
                batch, self._position = found
                if self._listening is not None:
                    self._listening(self.stats)
                found = None
                yield with_state(batch, self._state())
                del batch  # it is the caller's alone while the next one is waited for
        finally:
            self._counters.left()
            loop.close()
        if self._begun and self._loop is not None and self._loop() is loop:
            self._move(self._epoch + 1, 0)

    def at(self, epoch: int, step: int) -> Any:
        """The batch of this rank at ``step`` of ``epoch``, bit for bit as a loop gives it, made now in this thread.

        O(1): nothing before it is read. The loader, its running loop and its statistics know nothing of it.
        """
        self._check_open()
        arguments.whole("epoch", epoch, least=0)
        position = arguments.whole("step", step, least=0) * self._schedule.plan.batch
        if self._schedule.after(position) is None:
            raise BadArgument("step", step, f"an epoch has {len(self)} steps")
        planned = self._schedule.step(epoch, position)
        return with_state(self._assembler.uncounted().make(planned), self._state(epoch, planned.after))

    def skip(self, steps: int) -> None:
        """Go on ``steps`` batches further, into later epochs if need be; nothing is read.

        A running loop goes on there, or ends where that is in a later epoch.
        """
        arguments.whole("steps", steps, least=0)
        loop = self._running()
        if self._begun and loop is None:
            self._move(self._epoch + 1, 0)
        left = self._schedule.left(self._position)
        if steps < left:
            self._position += steps * self._schedule.plan.batch
            if loop is not None:
                loop.seek(self._position)
            return
        if not len(self):
            raise BadArgument("steps", steps, "the epoch has no batches")
        epochs, rest = divmod(steps - left, len(self))
        self._move(self._epoch + 1 + epochs, rest * self._schedule.plan.batch)
        if loop is not None:
            loop.close()

    # -- where it is ----------------------------------------------------------------------------------------------

    @property
    def topology(self) -> Topology:
        """The rank this loader feeds, resolved."""
        return self._schedule.plan.topology

    @property
    def samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self._schedule.size

    @property
    def epoch(self) -> int:
        """The epoch of the running loop, or of the next one (of the last one where that was left early)."""
        return self._epoch

    @property
    def step(self) -> int:
        """Batches of the epoch that have been handed out: ``enumerate(loader, loader.step)`` numbers a resumed one."""
        return self._schedule.step_at(self._position)

    def set_epoch(self, epoch: int) -> None:
        """Begin the next loop at the start of ``epoch``. The current epoch changes nothing."""
        if arguments.whole("epoch", epoch, least=0) != self._epoch:
            self._retire("set_epoch() ended this loop")
            self._move(epoch, 0)

    def state_dict(self) -> dict[str, int | str]:
        """Where the loader is: what the caller has received, the same on every rank, as plain ints and strings."""
        return self._state()

    def load_state_dict(self, state: Mapping[str, Any], *, allow: Collection[str] = ()) -> None:
        """Go on where ``state`` was taken; O(1). Raises `StateMismatch` naming what changed.

        ``allow=("batch_size",)`` accepts another global batch size: positions count samples.
        """
        found = restore(state, self._parameters, self._schedule.size, allow)
        self._retire("load_state_dict() ended this loop")
        self._move(found.epoch, found.position)

    @staticmethod
    def state_of(batch: Any) -> dict[str, int | str]:
        """The state right after ``batch``, which carries it through queues, processes and copies."""
        return state_of(batch)

    def stats(self) -> Stats:
        """What was done so far, the pace of the last seconds and what sets it: see `datahub.loader.listening.stats`."""
        loop = self._running()
        return stats(self._counters, self._source, self._workers, self._prefetch, 0 if loop is None else loop.ready)

    def on_stats(self, call: Callable[[Stats], Any] | None, *, every: float = 10.0) -> None:
        """Have ``call(loader.stats())`` made in the loop's thread, as a batch is handed out, every so many seconds.

        None ends it. What ``call`` raises is raised in the loop.
        """
        arguments.callables(call=call)
        self._listening = None if call is None else Listening(call, arguments.seconds("every", every))

    def explain(self) -> str:
        """A few lines for people: what is read, in which order, by how many threads, and what takes the time."""
        chosen = self._residency.chosen
        kind = "threads" if self._staff is None else "processes"
        ahead = self._prefetch if self._staff is None else max(self._prefetch, self._workers)
        workers, place = (self._workers, kind), self._assembler.place
        return explanation(self.split, self._schedule, chosen, workers, ahead, self.stats(), place)

    # -- ending ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the running loop, wait for its threads, give descriptors back. The loader cannot be used again."""
        loop = self._running()
        if loop is not None:
            loop.retire("the loader was closed", patience=self._timeout)
        self._closed = True
        if self._staff is not None:
            self._staff.close()
        self._assembler.close()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the loader is closed", "make a new one, with load_state_dict() to go on where it was")

    @cached_property
    def _schedule(self) -> Schedule:
        topology = resolve_topology(self._given_topology, os.environ)
        batch = self._global_batch_size or (self._batch_size or 0) * topology.world_size
        arguments.fits(batch, topology.world_size, self._options.lanes)
        check_groups(self.recipe.mixing, batch, topology.world_size)
        return Schedule(
            Plan(
                shards=self.split.shard_samples,
                block=self.split.block,
                seed=self._seed,
                shuffle=self._shuffle,
                options=self._options,
                batch=batch,
                drop_last=self._drop_last,
                static_shapes=self._static_shapes,
                topology=topology,
                population=self._members.population,
            )
        )

    def _kit(self) -> Kit:
        """What worker processes make batches with."""
        recipe, resident = self.recipe, self._residency.mapped()
        aside = self._staff is not None and self._staff.sets_aside
        return Kit(self.split, self._source, recipe, self._schedule.plan, self._seed, aside, resident, self._workers)

    @cached_property
    def _parameters(self) -> OrderParameters:
        plan = self._schedule.plan
        chosen = self._members.parameters(plan.batch)
        return OrderParameters(
            dataset=self._members.name,
            fingerprint=self.split.fingerprint,
            block=plan.block,
            seed=plan.seed,
            batch=plan.batch,
            lanes=plan.options.lanes,
            window=str(plan.options.window),
            shuffle=int(plan.shuffle),
            drop_last=int(plan.drop_last),
            where=chosen["where"],
            part=chosen["part"],
            max_samples=chosen["max_samples"],
            mix=chosen["mix"],
        )

    @cached_property
    def _fixed_state(self) -> dict[str, int | str]:
        return State(0, 0).to_dict(self._parameters)

    def _state(self, epoch: int | None = None, position: int | None = None) -> dict[str, int | str]:
        where = {"epoch": self._epoch if epoch is None else epoch}
        return {**self._fixed_state, **where, "position": self._position if position is None else position}

    def _running(self) -> Iteration | None:
        loop = None if self._loop is None else self._loop()
        return loop if loop is not None and loop.running else None

    def _retire(self, reason: str) -> None:
        if (loop := self._running()) is not None:
            loop.retire(reason)

    def _move(self, epoch: int, position: int) -> None:
        self._epoch, self._position, self._begun = epoch, position, False

    def _moments(self) -> Moments | None:
        """The pixels' mean and deviation: those of ``train`` where there is one, so that splits are scaled alike."""
        splits = self.dataset.record.splits
        stats = splits["train" if "train" in splits else self.split.name].stats
        return Moments(stats.mean, stats.std) if stats is not None else None
