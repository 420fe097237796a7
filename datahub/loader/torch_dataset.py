"""`StreamingDataset`: the loader's batches as a torch ``IterableDataset``, for code that has a DataLoader already.

Worker w of n makes every n-th batch from the w-th on, so that a DataLoader, which asks its workers in turn, hands out
the batches of `StreamingLoader` in its order. Each process has a loader of its own, made where it is used: after a
fork nothing of the parent's (locks, threads, connections) is touched.
"""

from __future__ import annotations

import gc
import inspect
import os
import secrets
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from datahub.core.errors import BadArgument, DatahubError, StateMismatch, UsageError
from datahub.core.refs import Ref, is_shards
from datahub.loader import arguments
from datahub.loader.batch import Batch, ListBatch, TupleBatch, as_list, state_of
from datahub.loader.board import Board, Entry, number
from datahub.loader.streaming import StreamingLoader
from datahub.loader.topology import Topology
from datahub.loader.under_accelerate import refuse_wrapped


class Seat(NamedTuple):
    """Worker ``worker`` of the ``workers`` processes of a DataLoader, or the main process: 0 of 1, not ``inside``."""

    worker: int = 0
    workers: int = 1
    seed: int = 0
    """The same for all workers of a loop."""
    inside: bool = False

    @classmethod
    def here(cls) -> Seat:
        info = get_worker_info()
        return cls() if info is None else cls(info.id, info.num_workers, info.seed - info.id, True)

    def told(self, error: DatahubError) -> DatahubError:
        """``error`` as it can travel: torch makes a worker's exception anew from its text, which leaves cannot be."""
        if not self.inside:
            return error
        family = next(each for each in type(error).__mro__ if each.__init__ is DatahubError.__init__)  # type: ignore[misc]
        return family(error.message, error.next_step)  # type: ignore[no-any-return]


class StreamingDataset(IterableDataset[Any]):
    """Takes the arguments of `StreamingLoader` and yields its batches: ``DataLoader(dataset, batch_size=None)``.

    A DataLoader's ``num_workers`` are processes; the argument here is threads in each of them, by default none.
    ``fields`` give lists in place of tuples, as a DataLoader does.

    Every loop runs the next epoch, as loops over a `StreamingLoader` do, and ``set_epoch(current)`` changes nothing;
    both hold with persistent workers too. What a DataLoader has handed out only its batches know: save
    ``datahub.state_of(batch)``, and `load_state_dict` goes on there with any number of workers. torchdata's
    StatefulDataLoader saves the datasets of its workers, and goes on with as many workers as it had.

    Under Hugging Face Accelerate a DataLoader of it is not passed to ``prepare``, which would cut up every process's
    share, and is refused there; a `StreamingLoader` may be, and stays as it is.

    A `DatahubError` of a worker arrives as its family (`VerificationError` for a `DamagedSample`), with its text.
    """

    _loops: int
    _at: Entry
    """Where this process's loop is."""
    _resumed: bool
    """A state that was loaded in this worker says where, and the next loop goes on there."""

    def __init__(self, ref: Any, split: str = "train", **options: Any) -> None:
        if not _on_host(options.get("device", "cpu")):
            reason = "batches cross from worker processes through the host's memory"
            raise BadArgument("device", options["device"], reason, "move them in the loop, or use StreamingLoader")
        self._ref, self._split, self._options = ref, split, options
        self._board = Board()
        self._topology: Topology | None = None
        self._facts: Mapping[str, int | str] | None = None
        """The state of the parent's loader; None in the process that made the dataset."""
        self._made: StreamingLoader | None = None
        loader = StreamingLoader(ref, split, **options)
        self._run = loader.announced.run
        self._settle(loader)
        weakref.finalize(self, _part, loader, self._board, os.getpid())

    def __len__(self) -> int:
        """Batches of a whole epoch, of all workers together; the same on every rank."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        seat = Seat.here()
        try:
            return self._begin(seat)
        except DatahubError as error:
            raise seat.told(error) from error

    def _begin(self, seat: Seat) -> Iterator[Any]:
        refuse_wrapped()
        if seat.inside and self._options.get("residency") == "encoded":
            reason = "every worker process of a DataLoader would hold the set for itself"
            raise BadArgument("residency", "encoded", reason, "use StreamingLoader, or DataLoader(num_workers=0)")
        loader = self._loader
        loop = number(seat.seed if seat.inside else secrets.randbits(62), self._loops)
        self._loops += 1
        if self._resumed:
            entry, first = self._at._replace(loop=loop), 0
            self._board.put(entry)
        else:
            entry, first = self._board.begin(loop, seat.worker), seat.worker
        self._resumed = False
        loader.load_state_dict({**self._state, "epoch": entry.epoch, "position": entry.position})
        self._at = entry._replace(position=min(entry.position + first * self._batch, loader.samples))
        return self._batches(loader.share(first, seat.workers), seat, loop)

    def _batches(self, batches: Iterator[Any], seat: Seat, loop: int) -> Iterator[Any]:
        loader = self._loader
        try:
            for batch in batches:
                after = int(loader.state_dict()["position"]) + (seat.workers - 1) * self._batch
                self._at = self._at._replace(position=min(after, loader.samples))
                yield as_list(batch)
                del batch
        except DatahubError as error:
            raise seat.told(error) from error
        self._board.finish(loop)

    # -- where it is ----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch of the running loop, or of the next one (of the last one where that was left early)."""
        return self._board.epoch

    def set_epoch(self, epoch: int) -> None:
        """Begin the next loop at the start of ``epoch``. The current epoch changes nothing."""
        if arguments.whole("epoch", epoch, least=0) != self.epoch:
            self._board.put(Entry(0, epoch, 0))

    def state_dict(self) -> dict[str, int | str]:
        """Where this process's loop is; in a DataLoader's worker, where that worker is.

        Raises `UsageError` once workers have begun a loop: the dataset cannot know what their DataLoader has given.
        """
        seat = Seat.here()
        if seat.inside:
            own = {"worker": seat.worker, "workers": seat.workers}
            return {**self._state, "epoch": self._at.epoch, "position": self._at.position, **own}
        entry = self._board.read()
        if entry.loop == 0:
            return {**self._state, "epoch": entry.epoch, "position": entry.position}
        if entry.loop != self._at.loop:
            reason = "the dataset cannot know which of its workers' batches the DataLoader has handed out"
            raise UsageError(reason, "save datahub.state_of(batch), or use torchdata's StatefulDataLoader")
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, allow: Collection[str] = ()) -> None:
        """Go on where ``state`` was taken, with the next loop. Raises `StateMismatch` naming what changed.

        ``allow=("batch_size",)`` accepts another global batch size.
        """
        seat = Seat.here()
        try:
            self._load(dict(state) if isinstance(state, Mapping) else state, seat, allow)
        except DatahubError as error:
            raise seat.told(error) from error

    def _load(self, state: Any, seat: Seat, allow: Collection[str]) -> None:
        if isinstance(state, dict) and "workers" in state:
            before = (state.pop("worker"), state.pop("workers"))
            if before != (seat.worker, seat.workers) or not seat.inside:
                now = f"is of {seat.workers}" if seat.inside else "is of none"
                changed = [f"the worker was {before[0]} of {before[1]}, {now}"]
                raise StateMismatch(changed, "resume with as many workers, or from a batch's: datahub.state_of(batch)")
        loader = self._loader
        loader.load_state_dict(state, allow=allow)
        found = loader.state_dict()
        entry = Entry(0, int(found["epoch"]), int(found["position"]))
        if seat.inside:
            self._at, self._resumed = entry, True
        else:
            self._board.put(entry)

    @staticmethod
    def state_of(batch: Any) -> dict[str, int | str]:
        """The state right after ``batch``, which carries it out of a worker and through a pinning thread."""
        return state_of(batch)

    def explain(self) -> str:
        """A few lines for people: what is read, and in which order."""
        return self._loader.explain()

    def close(self) -> None:
        """Give back what this process's loader holds; worker processes end with their DataLoader."""
        if self._made is not None and self._process == os.getpid():
            self._made.close()

    # -- in each process ------------------------------------------------------------------------------------------

    @property
    def _loader(self) -> StreamingLoader:
        if self._made is None or self._process != os.getpid():
            if self._made is not None:
                # Forked. The parent's garbage is the parent's to collect: its finalisers have no business here, and
                # looking through its objects would copy their memory into every worker.
                gc.freeze()
            ref, topology, facts = self._inherited()
            self._topology, self._facts = topology, facts
            options = {**self._options, "topology": topology}
            if options.get("num_workers") is None and Seat.here().inside:
                options["num_workers"] = 0
            made = StreamingLoader(ref, self._split, **options)
            made.announced.run = self._run
            self._settle(made)
        assert self._made is not None
        return self._made

    def _settle(self, loader: StreamingLoader) -> None:
        self._made, self._process = loader, os.getpid()
        self._loops, self._resumed, self._at = 0, False, Entry(0, 0, 0)
        for kind in (Batch, TupleBatch, ListBatch):
            default_collate_fn_map.setdefault(kind, _refuse)

    def _inherited(self) -> tuple[Any, Topology | None, Mapping[str, int | str]]:
        """What a child's loader must agree with: the exact reference, the rank, and the state of the parent's."""
        loader = self._made
        if loader is None:
            return self._ref, self._topology, self._facts or {}
        named = isinstance(self._ref, str | Ref) and not is_shards(self._ref)
        return (str(loader.dataset.ref) if named else self._ref), loader.topology, self._state

    @property
    def _state(self) -> Mapping[str, int | str]:
        """The parent's where there is one: a child whose data are not the same is refused by its own loader."""
        if self._facts is not None:
            return self._facts
        assert self._made is not None
        return self._made.state_dict()

    @property
    def _batch(self) -> int:
        return int(self._state["batch"])

    def __getstate__(self) -> dict[str, Any]:
        refuse_wrapped()
        ref, topology, facts = self._inherited()
        return {
            "_ref": ref,
            "_split": self._split,
            "_options": self._options,
            "_board": self._board,
            "_topology": topology,
            "_facts": facts,
            "_run": self._run,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _made=None, _process=0)


StreamingDataset.__init__.__signature__ = inspect.signature(StreamingLoader.__init__)  # type: ignore[attr-defined]


def _part(loader: StreamingLoader, board: Board, process: int) -> None:
    """The dataset goes: so does the job that its workers have announced to cache servers."""
    if process == os.getpid() and board.read().loop:
        with suppress(DatahubError, OSError, RuntimeError):
            loader.announce_end()


def _on_host(device: Any) -> bool:
    return str(device) == "cpu"


def _refuse(*_: Any, **__: Any) -> Any:
    """What torch's collation does to whole batches: DataLoader's ``batch_size`` is 1 unless it is told otherwise."""
    raise UsageError("the dataset yields whole batches", "write DataLoader(dataset, batch_size=None)")
