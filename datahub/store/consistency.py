"""What a record says against itself and against the folder's names and sizes. Reads no data: a stat for each file."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datahub.core.errors import Problem
from datahub.store import blocks
from datahub.store.find import Located
from datahub.store.record import BLOCKS, FILENAME, FileEntry, Record, SplitEntry, fingerprint


def in_record(located: Located) -> Iterator[Problem]:
    """Contradictions inside the record, and with the folder it stands in."""
    record = located.record
    if record.ref != str(located.ref):
        yield Problem(FILENAME, f"is of {record.ref}, but stands as {located.ref}")
    counts = Counter(each.path for each in record.files)
    for path in [path for path, count in counts.items() if count > 1]:
        yield Problem(FILENAME, f"lists {path} {counts[path]} times")
    for name, split in record.splits.items():
        for message in _in_split(record, name, split):
            yield Problem(f"{FILENAME}: splits.{name}", message)


def _in_split(record: Record, name: str, split: SplitEntry) -> Iterator[str]:
    listed = {each.path: each for each in record.files}
    for path in (*(each.path for each in split.shards), split.locate, split.index):
        if path not in listed:
            yield f"{path} is not among the files"
            return
    if sum(each.samples for each in split.shards) != split.samples:
        yield f"the shards hold {sum(each.samples for each in split.shards)} samples, not {split.samples}"
    if split.histogram and sum(split.histogram) != split.samples:
        yield f"the histogram counts {sum(split.histogram)} samples, not {split.samples}"
    shards = [(each.samples, listed[each.path].sha256) for each in split.shards]
    if fingerprint(name, record.fields, split.block, shards) != split.fingerprint:
        yield "the fingerprint is not of these shards"


def of_size(located: Located) -> Iterator[tuple[FileEntry | None, Problem]]:
    """Files of the record that are missing or of another size, shards first; None stands for `blocks.bin`."""
    for entry in shards_first(located.record):
        message = _size(located.path / entry.path, entry.bytes)
        if message:
            yield entry, Problem(entry.path, message)
    message = _size(located.path / BLOCKS, blocks.size(located.record.files))
    if message:
        yield None, Problem(BLOCKS, message)


def shards_first(record: Record) -> list[FileEntry]:
    return sorted(record.files, key=lambda entry: entry.role != "shard")


def _size(path: Path, expected: int) -> str:
    """What is wrong with the file's presence or size; "" if nothing is."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if not stat.S_ISREG(found.st_mode):
        return "not a file"
    if found.st_size == expected:
        return ""
    kind = "truncated" if found.st_size < expected else "too long"
    return f"{kind}, {found.st_size} bytes instead of {expected}"


def unlisted(located: Located) -> list[str]:
    """Files in the folder that the record does not list, by relative path; dot-files of file systems are ignored."""
    listed = {each.path for each in located.record.files} | {FILENAME, BLOCKS}
    found = (path.relative_to(located.path).as_posix() for path in located.path.rglob("*") if not path.is_dir())
    return sorted(path for path in found if path not in listed and not path.rpartition("/")[2].startswith("."))
