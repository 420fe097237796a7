"""Running a `PackPlan`: shard tasks on an executor, then the commit. Killed at any moment, it is taken up again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED as FIRST
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path

from datahub.core import atomic
from datahub.core.errors import AlreadyPacked, RecordInvalid, WorkerDied, from_oserror
from datahub.core.events import Listener, Note, Progress, ignore
from datahub.core.locks import FileLock
from datahub.core.settings import Settings
from datahub.pack import commit, executor
from datahub.pack.images import EXTENSIONS
from datahub.pack.plan import PackPlan
from datahub.pack.shard import Done, Task, pack
from datahub.pack.source import Source
from datahub.store import record as records
from datahub.store.paths import variant_dir

FEW = 20_000
"""Samples under which starting worker processes costs more than it saves."""


def run(
    plan: PackPlan,
    source: Source,
    *,
    settings: Settings,
    jobs: int | None = None,
    listener: Listener = ignore,
    replace: bool = False,
) -> Path:
    """Pack and commit; returns the variant's folder. Bytes do not depend on ``jobs``.

    Raises `AlreadyPacked` where other bytes stand under the name, unless ``replace``; `DiskFull`, `WorkerDied`, ...
    """
    ref = plan.ref
    target = variant_dir(settings.datasets, ref.name, str(ref.version), str(ref.variant))
    before = _identity(target)
    if not replace and _stands(plan, target, replace):
        return target
    lock = settings.locks / f"pack-{plan.digest.removeprefix('sha256:')}.lock"

    def waiting(owner: str) -> None:
        listener(Note("pack", f"waiting for {owner}, which is packing {ref}", warning=True))

    def committed_meanwhile() -> bool:
        return _identity(target) != before and _stands(plan, target, replace)

    with FileLock(lock, on_wait=waiting):
        if committed_meanwhile():
            return target
        done = _pack_all(plan, source, jobs, listener)
        commit.write(plan, done)
        with FileLock(settings.locks / f"publish-{ref.name}-{ref.version}-{ref.variant}.lock"):
            if committed_meanwhile():
                return target
            atomic.publish_dir(plan.building / "out", target, settings.trash)
        shutil.rmtree(plan.building, ignore_errors=True)
    return target


def _identity(target: Path) -> tuple[int, int] | None:
    """Tells one commit at ``target`` from the next."""
    try:
        found = (target / records.FILENAME).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _stands(plan: PackPlan, target: Path, replace: bool) -> bool:
    """True if this very plan is committed at ``target``; `AlreadyPacked` if another is and ``replace`` is not said."""
    try:
        found = records.read(target)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except RecordInvalid:
        if replace:
            return False
        raise
    if found.plan == plan.digest:
        return True
    if not replace:
        raise AlreadyPacked(str(plan.ref), str(target))
    return False


def tasks(plan: PackPlan) -> list[Task]:
    image = plan.fields["image"]
    scalars = tuple(name for name in plan.fields if name not in ("image", "label"))
    return [
        Task(
            plan=plan.digest,
            folder=plan.building,
            dataset=plan.ref.name,
            split=each.split,
            number=each.number,
            first=each.first,
            last=each.last,
            samples=plan.splits[each.split],
            permuted=plan.permuted,
            extension=EXTENSIONS.get(image.extension, image.extension),
            scalars=scalars,
            classes=len(plan.classes),
            stats=plan.options["stats"],
        )
        for each in plan.shards
    ]


def workers(plan: PackPlan, jobs: int | None) -> int:
    """How many processes to pack with."""
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if sum(plan.splits.values()) >= FEW else 1
    return max(1, min(jobs, len(plan.shards)))


def _pack_all(plan: PackPlan, source: Source, jobs: int | None, listener: Listener) -> dict[str, list[Done]]:
    for folder in ("out", "work"):
        atomic.make_dir(plan.building / folder)
    todo = tasks(plan)
    found: dict[tuple[str, int], Done] = {}
    counted = dict.fromkeys(plan.splits, 0)
    with _running(workers(plan, jobs)) as pool:
        for task, done in _finished(pool, todo, source):
            found[task.split, task.number] = done
            counted[task.split] += done.samples
            listener(Progress("pack", task.split, counted[task.split], plan.splits[task.split], "samples"))
    return {split: [found[t.split, t.number] for t in todo if t.split == split] for split in plan.splits}


def _finished(pool: Executor, todo: list[Task], source: Source) -> Iterator[tuple[Task, Done]]:
    """Tasks as they finish. In-process tasks are submitted one by one, so that progress is seen between them."""
    if isinstance(pool, executor.InProcess):
        for task in todo:
            yield task, _result(pool.submit(pack, task, source))
        return
    running: dict[Future[Done], Task] = {pool.submit(pack, task, source): task for task in todo}
    pending = set(running)
    while pending:
        ready, pending = wait(pending, return_when=FIRST)
        for future in ready:
            yield running[future], _result(future)


def _result(future: Future[Done]) -> Done:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise WorkerDied("packing", "it was killed, perhaps for want of memory") from error
    except OSError as error:
        raise from_oserror(error, error.filename or "a shard") from error


@contextmanager
def _running(jobs: int) -> Iterator[Executor]:
    pool = executor.make(jobs)
    try:
        yield pool
    except BaseException:
        executor.stop(pool)
        raise
    pool.shutdown()
