"""Loops over batches: one at a time, resumable at any batch, told of while they run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from datahub.core.errors import BadArgument, UsageError
from datahub.loader import arguments
from datahub.loader.announcing import Announced
from datahub.loader.assemble import Assembler
from datahub.loader.batch import state_of, with_state
from datahub.loader.course import Course
from datahub.loader.explain import explanation
from datahub.loader.iteration import Iteration
from datahub.loader.listening import Listening, Stats, stats
from datahub.loader.process.kit import Kit
from datahub.loader.process.staff import Staff
from datahub.loader.recipe import Supplies
from datahub.loader.resident import Residency
from datahub.loader.topology import Topology


class Looping:
    """What a `StreamingLoader` is once it is put together; that one says what its loops and arguments mean."""

    def __init__(
        self,
        supplies: Supplies,
        course: Course,
        assembler: Assembler,
        residency: Residency,
        staff: Staff | None,
        announced: Announced,
        *,
        workers: int,
        prefetch: int,
        timeout: float,
    ) -> None:
        """``staff``: processes that make the batches in place of threads."""
        self.split, self.dataset, self.recipe = supplies.split, supplies.split.dataset, supplies.recipe
        self._supplies, self._source, self._counters = supplies, supplies.source, supplies.counters
        self._course, self._assembler, self._residency, self._staff = course, assembler, residency, staff
        self.announced = announced
        self._workers, self._prefetch, self._timeout = workers, prefetch, timeout
        self._loop: weakref.ref[Iteration] | None = None
        self._listening: Listening | None = None
        self._closed = False

    # -- iterating ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every rank."""
        return len(self._course.schedule)

    def __iter__(self) -> Iterator[Any]:
        return self.share()

    def share(self, first: int = 0, every: int = 1) -> Iterator[Any]:
        """A loop over some of this rank's batches: ``first`` batches from where it would begin, and ``every``-th then.

        For processes that share the work of a rank; a `for` over the loader takes them all.
        """
        self._check_open()
        self._retire("this loop was ended by a newer one over the same loader")
        self._counters.after_fork()
        course = self._course
        course.pass_over()
        course.begun = True
        batch = course.schedule.plan.batch
        self._assembler.reside(self._residency.open())
        if (held := self._residency.hold()) is not None:
            self._assembler.read_from(held)
        self.announced.begin(course, weakref.WeakMethod(self._progress))
        team = None if self._staff is None else self._staff.hired(self._kit)
        loop = Iteration(
            course.schedule,
            self._assembler,
            course.epoch,
            course.position + first * batch,
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
                batch, self._course.position = found
                if self._listening is not None:
                    self._listening(self.stats)
                found = None
                yield with_state(batch, self._course.state())
                del batch  # it is the caller's alone while the next one is waited for
        finally:
            self._counters.left()
            loop.close()
        if self._loop is not None and self._loop() is loop:
            self._course.pass_over()

    def at(self, epoch: int, step: int) -> Any:
        """The batch of this rank at ``step`` of ``epoch``, bit for bit as a loop gives it, made now in this thread.

        O(1): nothing before it is read. The loader, its running loop and its statistics know nothing of it.
        """
        self._check_open()
        arguments.whole("epoch", epoch, least=0)
        schedule = self._course.schedule
        position = arguments.whole("step", step, least=0) * schedule.plan.batch
        if schedule.after(position) is None:
            raise BadArgument("step", step, f"an epoch has {len(self)} steps")
        planned = schedule.step(epoch, position)
        return with_state(self._assembler.uncounted().make(planned), self._course.state(epoch, planned.after))

    def skip(self, steps: int) -> None:
        """Go on ``steps`` batches further, into later epochs if need be; nothing is read.

        A running loop goes on there, or ends where that is in a later epoch.
        """
        arguments.whole("steps", steps, least=0)
        loop = self._running()
        if loop is None:
            self._course.pass_over()
        here = self._course.skip(steps)
        if loop is None:
            return
        if here:
            loop.seek(self._course.position)
        else:
            loop.close()

    # -- where it is ----------------------------------------------------------------------------------------------

    @property
    def topology(self) -> Topology:
        """The rank this loader feeds, resolved."""
        return self._course.schedule.plan.topology

    @property
    def samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self._course.schedule.size

    @property
    def epoch(self) -> int:
        """The epoch of the running loop, or of the next one (of the last one where that was left early)."""
        return self._course.epoch

    @property
    def step(self) -> int:
        """Batches of the epoch that have been handed out: ``enumerate(loader, loader.step)`` numbers a resumed one."""
        return self._course.schedule.step_at(self._course.position)

    def set_epoch(self, epoch: int) -> None:
        """Begin the next loop at the start of ``epoch``. The current epoch changes nothing."""
        if arguments.whole("epoch", epoch, least=0) != self._course.epoch:
            self._retire("set_epoch() ended this loop")
            self._course.move(epoch, 0)

    def state_dict(self) -> dict[str, int | str]:
        """Where the loader is: what the caller has received, the same on every rank, as plain ints and strings."""
        return self._course.state()

    def load_state_dict(self, state: Mapping[str, Any], *, allow: Collection[str] = ()) -> None:
        """Go on where ``state`` was taken; O(1). Raises `StateMismatch` naming what changed.

        ``allow=("batch_size",)`` accepts another global batch size: positions count samples.
        """
        found = self._course.found(state, allow)
        self._retire("load_state_dict() ended this loop")
        self._course.move(found.epoch, found.position)

    @staticmethod
    def state_of(batch: Any) -> dict[str, int | str]:
        """The state right after ``batch``, which carries it through queues, processes and copies."""
        return state_of(batch)

    def stats(self) -> Stats:
        """What was done so far, the pace of the last seconds and what sets it: see `datahub.loader.listening.stats`."""
        loop = self._running()
        ready, source = 0 if loop is None else loop.ready, self._assembler.source
        return stats(self._counters, source, self._workers, self._prefetch, ready)

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
        return explanation(self.split, self._course.schedule, chosen, workers, ahead, self.stats(), place)

    # -- ending ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the running loop, wait for its threads, give descriptors back. The loader cannot be used again."""
        loop = self._running()
        if loop is not None:
            loop.retire("the loader was closed", patience=self._timeout)
        self._closed = True
        self.announced.end()
        if self._staff is not None:
            self._staff.close()
        self._assembler.close()
        self._assembler.read_from(self._source)
        self._residency.close()
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

    def _kit(self) -> Kit:
        """What worker processes make batches with."""
        plan, resident = self._course.schedule.plan, self._residency.mapped()
        aside, source = self._staff is not None and self._staff.sets_aside, self._assembler.source
        return Kit(self.split, source, self.recipe, plan, self._supplies.seed, aside, resident, self._workers)

    def _running(self) -> Iteration | None:
        loop = None if self._loop is None else self._loop()
        return loop if loop is not None and loop.running else None

    def _progress(self) -> tuple[int, int, int] | None:
        """Epoch and position of the running loop, or of the next one, and how far it has asked; for another thread."""
        if self._closed:
            return None
        loop, course = self._running(), self._course
        epoch, position = course.epoch, course.position
        if loop is None:
            return (epoch + 1, 0, 0) if course.begun else (epoch, position, position)
        return epoch, position, max(position, min(loop.asked, course.schedule.size))

    def announce_end(self) -> None:
        """Tell cache servers that the job is over which worker processes with copies of this loader have announced."""
        self.announced.part(self._course)

    def _retire(self, reason: str) -> None:
        if (loop := self._running()) is not None:
            loop.retire(reason)
