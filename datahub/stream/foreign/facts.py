"""What tells a shard from other bytes that were at its place: its size, and when it was written or its ETag."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from datahub.core.errors import BadArgument, HttpError, NotReadable, OriginError
from datahub.stream.foreign.naming import Named
from datahub.stream.foreign.places import ShardFiles
from datahub.stream.origin import CONNECTIONS
from datahub.stream.patience import POLICY, pause

SCHEMA = 1
"""Raised when scanning equal bytes would give another index."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A shard as it is now. ``mark`` is empty where its origin says no more than the size."""

    named: Named
    size: int
    mark: str

    @property
    def key(self) -> str:
        """64 hex digits: of the same place with the same facts, whatever the credentials in its URL."""
        return _digest([SCHEMA, self.named.shown, self.named.name, self.size, self.mark])


def of_shards(shards: Sequence[Named], files: ShardFiles, seconds: float) -> list[Facts]:
    """The facts of each, asked for side by side. Raises `BadArgument` for one that is not there, `OriginError`s."""
    if all(each.local for each in shards):
        return [of_local(each) for each in shards]
    with ThreadPoolExecutor(2 * CONNECTIONS, thread_name_prefix="datahub-facts") as pool:
        return list(pool.map(lambda each: of_remote(each, files, seconds), shards))


def of_remote(shard: Named, files: ShardFiles, seconds: float) -> Facts:
    """One shard's, asked for until it is told or ``seconds`` are over."""
    began, failures = time.monotonic(), 0
    while True:
        try:
            size, mark = files.facts(shard.name, max(0.001, began + seconds - time.monotonic()))
            return Facts(shard, size, mark)
        except HttpError as error:
            if error.status == 404:
                raise BadArgument("source", shard.shown, "there is no such shard", "check the URL") from error
            failures += 1
            pause(error, failures, began + seconds, POLICY, shard.shown, seconds)
        except OriginError as error:
            failures += 1
            pause(error, failures, began + seconds, POLICY, shard.shown, seconds)


def identity(facts: Iterable[Facts]) -> str:
    """64 hex digits that name the index of these shards in this order."""
    return _digest([SCHEMA, [[each.named.name, each.key] for each in facts]])


def of_local(shard: Named) -> Facts:
    """Raises `BadArgument` or `NotReadable`."""
    try:
        found = Path(shard.url).stat()
    except FileNotFoundError:
        raise BadArgument("source", shard.url, "there is no such shard", "check the path") from None
    except OSError as error:
        raise NotReadable(shard.url, error.strerror or str(error)) from error
    return Facts(shard, found.st_size, str(found.st_mtime_ns))


def _digest(facts: Any) -> str:
    return sha256(msgspec.json.encode(facts)).hexdigest()
