"""Running a `PackPlan`: shard tasks on an executor, then the commit. Killed at any moment, it is taken up again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED as FIRST
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datahub.core import atomic
from datahub.core.errors import AlreadyPacked, BadArgument, RecordInvalid, WorkerDied, from_oserror
from datahub.core.events import Listener, Note, Progress, ignore
from datahub.core.locks import FileLock
from datahub.core.settings import Settings
from datahub.pack import commit, executor, executors
from datahub.pack.ground import Bucket
from datahub.pack.images import EXTENSIONS
from datahub.pack.plan import PackPlan
from datahub.pack.shard import Done, Task, begin, finished, pack
from datahub.pack.source import Source
from datahub.store import record as records
from datahub.store import typed
from datahub.store.paths import pack_lock, part_lock, variant_dir
from datahub.store.record import Record

FEW = 20_000
"""Samples under which starting worker processes costs more than it saves."""
HEAVY = 500
"""The same for recipes that decode or rewrite images."""
SHOWN = 3
"""Damaged samples that are told one by one."""


@dataclass(frozen=True, slots=True)
class Part:
    """Part ``number`` of ``parts``, counted from 1, of a plan that several machines pack."""

    number: int
    parts: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """``3/64``; raises `BadArgument`."""
        number, slash, parts = text.partition("/")
        if not slash or not all(each.isascii() and each.isdigit() for each in (number, parts)):
            raise BadArgument("task", text, "is not a part", "write --task 3/64: the third of 64")
        if not 1 <= int(number) <= int(parts):
            hint = "parts are counted from 1; in an array counted from 0 write $((INDEX + 1))/N"
            raise BadArgument("task", text, f"there is no part {number} of {parts}", hint)
        return cls(int(number), int(parts))

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"

    def of(self, todo: list[Task]) -> list[Task]:
        """Every ``parts``-th task, so that the shards of all splits are dealt out evenly."""
        return todo[self.number - 1 :: self.parts]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How to run; nothing of it changes a byte."""

    jobs: int | None = None
    """Processes; None: one a core where that pays."""
    executor: str | None = None
    """None or ``local``, ``dask://HOST``, ``ray://HOST``."""
    part: Part | None = None
    replace: bool = False


def run(
    plan: PackPlan, source: Source, *, settings: Settings, how: How | None = None, listener: Listener = ignore
) -> str | None:
    """Pack and commit; the variant's folder (or URL), or None where other parts are not finished yet.

    Raises `AlreadyPacked` where other bytes stand under the name, unless ``how.replace``; `DiskFull`, `WorkerDied`, ...
    """
    how = how or How()
    place: _Place = _Url(plan, plan.to) if plan.to else _Store(plan, settings)
    before = place.identity()
    if not how.replace and _stands(plan, place, how.replace):
        return place.name

    def waiting(owner: str) -> None:
        listener(Note("pack", f"waiting for {owner}, which is packing {plan.ref}", warning=True))

    def committed_meanwhile() -> bool:
        return place.identity() != before and _stands(plan, place, how.replace)

    if how.part is not None:
        with FileLock(part_lock(settings.locks, plan.digest, str(how.part)), on_wait=waiting):
            if committed_meanwhile():
                return place.name
            place.prepare()
            _pack_all(plan, source, how.part.of(tasks(plan)), how, listener)
        if missing := sum(finished(task) is None for task in tasks(plan)):
            if committed_meanwhile():
                return place.name
            note = f"part {how.part} of {plan.ref} is packed; {missing} shards of other parts are missing yet"
            listener(Note("pack", note))
            return None
    with FileLock(pack_lock(settings.locks, plan.digest), on_wait=waiting):
        if committed_meanwhile():
            return place.name
        place.prepare()
        made = commit.write(plan, _pack_all(plan, source, tasks(plan), how, listener))
        _tell(made, listener)
        place.publish(made, committed_meanwhile)
    return place.name


class _Place(Protocol):
    """Where the variant will stand."""

    @property
    def name(self) -> str: ...

    def identity(self) -> object:
        """Tells one commit there from the next; None where there is none."""
        ...

    def read(self) -> Record | None:
        """Raises `RecordInvalid`."""
        ...

    def prepare(self) -> None: ...

    def publish(self, made: Record, committed_meanwhile: Callable[[], bool]) -> None: ...


class _Store:
    """A variant folder of the home store: built elsewhere, renamed into place."""

    def __init__(self, plan: PackPlan, settings: Settings) -> None:
        ref = plan.ref
        self._building, self._trash = plan.building, settings.trash
        self._target = variant_dir(settings.datasets, ref.name, str(ref.version), str(ref.variant))
        self._lock = settings.locks / f"publish-{ref.name}-{ref.version}-{ref.variant}.lock"

    @property
    def name(self) -> str:
        return str(self._target)

    def identity(self) -> object:
        try:
            found = (self._target / records.FILENAME).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def read(self) -> Record | None:
        try:
            return records.read(self._target)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def prepare(self) -> None:
        for folder in ("out", "work"):
            atomic.make_dir(self._building / folder)

    def publish(self, made: Record, committed_meanwhile: Callable[[], bool]) -> None:
        _sweep(self._building / "out", made)
        with FileLock(self._lock):
            if committed_meanwhile():
                return
            atomic.publish_dir(self._building / "out", self._target, self._trash)
        shutil.rmtree(self._building, ignore_errors=True)


def _sweep(out: Path, made: Record) -> None:
    """Remove what is not part of the variant: a killed run's temporary files, shards that were left without samples."""
    ours = {records.FILENAME, records.BLOCKS, *(each.path for each in made.files)}
    for path in out.rglob("*"):
        if path.is_file() and str(path.relative_to(out)) not in ours:
            path.unlink()


class _Url:
    """A folder of an object store: shards are written where they stay, the record last."""

    def __init__(self, plan: PackPlan, url: str) -> None:
        ground = plan.ground
        assert isinstance(ground, Bucket)
        self._ground, self._plan, self.name = ground, plan, url

    def identity(self) -> object:
        return self._ground.get(f"out/{records.FILENAME}")

    def read(self) -> Record | None:
        data = self._ground.get(f"out/{records.FILENAME}")
        return None if data is None else records.decode(data, f"{self.name}/{records.FILENAME}")

    def prepare(self) -> None:
        """Another variant that is to be replaced is none from now on: its shards are overwritten one by one."""
        self._ground.remove(f"out/{records.FILENAME}")

    def publish(self, made: Record, committed_meanwhile: Callable[[], bool]) -> None:  # noqa: ARG002 - it stands already
        self._ground.clear()


def _stands(plan: PackPlan, place: _Place, replace: bool) -> bool:
    """True if this very plan is committed there; `AlreadyPacked` if another is and ``replace`` is not said."""
    try:
        found = place.read()
    except RecordInvalid:
        if replace:
            return False
        raise
    if found is None:
        return False
    if found.plan == plan.digest:
        return True
    if not replace:
        raise AlreadyPacked(str(plan.ref), place.name)
    return False


def tasks(plan: PackPlan) -> list[Task]:
    image = plan.fields["image"]
    return [
        Task(
            plan=plan.digest,
            ground=plan.ground,
            dataset=plan.ref.name,
            split=each.split,
            number=each.number,
            first=each.first,
            last=each.last,
            samples=plan.splits[each.split],
            permuted=plan.shuffle,
            extension=EXTENSIONS.get(image.extension, image.extension),
            scalars={name: kind for name, kind in typed.kinds(plan.fields).items() if kind not in typed.MEMBERS},
            members={name: spec for name, spec in plan.fields.items() if spec.type in typed.MEMBERS},
            classes=len(plan.classes),
            stats=plan.options["stats"],
            recipe=plan.recipe,
            damaged=plan.damaged,
        )
        for each in plan.shards
    ]


def workers(plan: PackPlan, jobs: int | None) -> int:
    """How many processes to pack with."""
    if jobs is None:
        few = FEW if plan.recipe.name == "published" else HEAVY
        jobs = len(os.sched_getaffinity(0)) if sum(plan.splits.values()) >= few else 1
    return max(1, min(jobs, len(plan.shards)))


def _pack_all(plan: PackPlan, source: Source, todo: list[Task], how: How, listener: Listener) -> dict[str, list[Done]]:
    found: dict[tuple[str, int], Done] = {}
    counted = dict.fromkeys(plan.splits, 0)
    whole = {split: sum(t.last - t.first for t in todo if t.split == split) for split in plan.splits}

    def note(task: Task, done: Done) -> None:
        found[task.split, task.number] = done
        counted[task.split] += task.last - task.first
        listener(Progress("pack", task.split, counted[task.split], whole[task.split], "samples"))

    left = []
    for task in todo:
        if done := finished(task):
            note(task, done)
        else:
            left.append(task)
    if left:
        with _running(how.executor, min(workers(plan, how.jobs), len(left))) as pool:
            for task, done in _finished(pool, left, source):
                note(task, done)
    return {split: [found[t.split, t.number] for t in todo if t.split == split] for split in plan.splits}


def _finished(pool: Executor, todo: list[Task], source: Source) -> Iterator[tuple[Task, Done]]:
    """Tasks as they finish. In-process tasks are submitted one by one, so that progress is seen between them."""
    if isinstance(pool, executor.InProcess):
        yield from _overlapped(todo, source)
        return
    running: dict[Future[Done], Task] = {pool.submit(pack, task, source): task for task in todo}
    pending = set(running)
    while pending:
        ready, pending = wait(pending, return_when=FIRST)
        for future in ready:
            yield running[future], _result(future)


def _overlapped(todo: list[Task], source: Source) -> Iterator[tuple[Task, Done]]:
    """Each shard is made durable while the next one is written."""
    with ThreadPoolExecutor(1, thread_name_prefix="finish") as pool:
        before: tuple[Task, Future[Done]] | None = None
        for task in todo:
            now = task, pool.submit(begin(task, source))
            if before is not None:
                yield before[0], _result(before[1])
            before = now
        if before is not None:
            yield before[0], _result(before[1])


def _result(future: Future[Done]) -> Done:
    try:
        return future.result()
    except BrokenExecutor as error:
        cause = "it was killed, perhaps for want of memory, or a script without `if __name__ == '__main__':` began it"
        raise WorkerDied("packing", cause) from error
    except OSError as error:
        raise from_oserror(error, error.filename or "a shard") from error


@contextmanager
def _running(where: str | None, jobs: int) -> Iterator[Executor]:
    pool = executors.make(where, jobs)
    try:
        yield pool
    except BaseException:
        executors.stop(pool)
        raise
    pool.shutdown()


def _tell(made: Record, listener: Listener) -> None:
    """What a person should know of the images before training on them."""
    for name, split in made.splits.items():
        if split.damaged:
            what = "were left out" if split.gaps else "are packed as they came"
            some = "; ".join(f"{each.source}: {each.reason}" for each in split.damaged[:SHOWN])
            more = f" and {len(split.damaged) - SHOWN} more" if len(split.damaged) > SHOWN else ""
            text = f"{name}: {len(split.damaged)} damaged images {what} ({some}{more})"
            listener(Note("pack", text, warning=True))
        if split.kept:
            kept = ", ".join(f"{count} {reason}" for reason, count in split.kept.items())
            listener(Note("pack", f"{name}: kept as they are: {kept}"))
        if split.duplicates:
            listener(Note("pack", f"{name}: {split.duplicates} images repeat an earlier one"))
    for pair, count in made.shared.items():
        listener(Note("pack", f"{' and '.join(pair.split('+'))} share {count} images", warning=True))
