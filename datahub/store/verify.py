"""`verify`: does a packed variant hold what its record says? Every problem is told at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from pathlib import Path

from datahub.core.digests import BLOCK
from datahub.core.errors import DatahubError, Problem, RecordInvalid, StoreDamaged
from datahub.core.events import Listener, Note, Progress, ignore
from datahub.store import blocks, consistency
from datahub.store.find import Located
from datahub.store.record import BLOCKS, FileEntry, SplitEntry

STAGE = "verify"
SHOWN = 8
"""Samples of one damaged range that are named; the others are counted."""


def verify(
    located: Located, *, quick: bool = False, deep: bool = False, jobs: int | None = None, listener: Listener = ignore
) -> None:
    """Check a packed variant; raises `StoreDamaged` with every problem.

    ``quick`` stats each file and checks the record against itself: no data is read. The default also checks every
    SHA-256 and block digest, in one pass over the bytes. ``deep`` also decodes every image and compares shards,
    offsets, locate rows and index with each other. ``jobs`` threads (default: one a processor) share the work.
    """
    problems = list(consistency.in_record(located))
    sizes = list(consistency.of_size(located))
    if quick and not deep:
        problems += [problem for _, problem in sizes]
    else:
        problems += [_with_samples(located, entry, problem) for entry, problem in sizes]
        wrong = {problem.place for _, problem in sizes}
        problems += _digests(located, wrong, jobs or _processors(), listener)
        problems += _strays(located, listener)
        if deep:
            from datahub.store.samples import check

            problems += check(located, wrong, jobs=jobs or _processors(), listener=listener)
    if problems:
        raise StoreDamaged(str(located.ref), problems)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digests(located: Located, wrong: Set[str], jobs: int, listener: Listener) -> list[Problem]:
    """Problems of the bytes of all files but those of the ``wrong`` size."""
    problems: list[Problem] = []
    raws: dict[str, bytes] = {}
    if BLOCKS not in wrong:
        try:
            raws = blocks.read(located.path, located.record.files)
        except DatahubError as error:
            problems.append(Problem(BLOCKS, error.message))
    whole = [entry for entry in consistency.shards_first(located.record) if entry.path not in wrong]
    total, done = sum(each.bytes for each in whole), 0
    found: dict[str, list[Problem]] = {}
    with ThreadPoolExecutor(jobs, thread_name_prefix=STAGE) as pool:
        futures = {pool.submit(_digest, located, each, raws.get(each.path)): each for each in whole}
        for future in as_completed(futures):
            entry = futures[future]
            found[entry.path] = future.result()
            done += entry.bytes
            listener(Progress(STAGE, str(located.ref), done, total))
    return problems + [problem for entry in whole for problem in found[entry.path]]


def _digest(located: Located, entry: FileEntry, raw: bytes | None) -> list[Problem]:
    try:
        actual = blocks.of_file(located.path / entry.path)
    except OSError as error:
        return [Problem(entry.path, f"cannot be read: {error.strerror or error}")]
    vouched = raw is not None and blocks.intact(entry, raw)
    problems = []
    if raw is not None and not vouched:
        problems.append(Problem(BLOCKS, f"the block digests of {entry.path} changed"))
    if raw is not None and vouched and len(raw) == len(actual.raw) and raw != actual.raw:
        problems.append(Problem(entry.path, _changed(located, entry, blocks.changed(raw, actual.raw))))
    elif actual.sha256 != entry.sha256 or actual.bytes != entry.bytes:
        problems.append(Problem(entry.path, f"changed: SHA-256 is {actual.sha256}, the record says {entry.sha256}"))
    return problems


def _changed(located: Located, entry: FileEntry, numbers: Sequence[int]) -> str:
    """Which blocks changed, where they are, and which samples lie in them."""
    total = blocks.count(entry.bytes)
    ranges = [(run[0] * BLOCK, min((run[-1] + 1) * BLOCK, entry.bytes)) for run in _runs(numbers)]
    where = ", ".join(f"{start}-{end}" for start, end in ranges)
    which = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in _runs(numbers))
    return f"changed in block {which} of {total} (bytes {where})" + _holding(located, entry, ranges)


def _with_samples(located: Located, entry: FileEntry | None, problem: Problem) -> Problem:
    """A problem of size, and which samples a truncated shard has lost."""
    if entry is None or not problem.message.startswith("truncated"):
        return problem
    left = (located.path / entry.path).stat().st_size
    return Problem(problem.place, problem.message + _holding(located, entry, [(left, entry.bytes)]))


def _holding(located: Located, entry: FileEntry, ranges: Sequence[tuple[int, int]]) -> str:
    """ ", which holds samples ..." of byte ranges of a shard; "" where there are none or the locate rows are lost."""
    keys = _touched(located, entry, ranges) if entry.role == "shard" else []
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f", which held samples {', '.join(keys[:SHOWN])}{more}" if keys else ""


def _runs(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Consecutive numbers together: 1 2 3 7 -> [1 2 3], [7]."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        yield [number for _, number in run]


def _touched(located: Located, entry: FileEntry, ranges: Sequence[tuple[int, int]]) -> list[str]:
    """Keys of the samples whose images overlap byte ranges of a shard; empty where the locate rows cannot tell."""
    from datahub.store.locate import open_rows
    from datahub.store.paths import key_of

    for name, split in located.record.splits.items():
        number = _number(split, entry.path)
        if number is not None:
            try:
                rows = open_rows(located.path / split.locate)
            except RecordInvalid:
                return []
            end = rows["offset"] + rows["size"]
            hit = sum(((rows["offset"] < stop) & (end > start) for start, stop in ranges), start=rows["shard"] < 0)
            return [key_of(name, split.number(int(row))) for row in (hit & (rows["shard"] == number)).nonzero()[0]]
    return []


def _number(split: SplitEntry, path: str) -> int | None:
    for number, shard in enumerate(split.shards):
        if shard.path == path:
            return number
    return None


def _strays(located: Located, listener: Listener) -> list[Problem]:
    """A shard the record does not list would be read by whoever globs; other strays do no harm and are only told."""
    problems = []
    for path in consistency.unlisted(located):
        if Path(path).suffix == ".tar":
            problems.append(Problem(path, "is not in the record, and readers that take every .tar would read it"))
        else:
            listener(Note(STAGE, f"{located.path / path} is not part of {located.ref}", warning=True))
    return problems
