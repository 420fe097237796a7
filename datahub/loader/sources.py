"""Where a loader's bytes come from: this machine's store, a URL read through the block cache, or foreign shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from datahub.core.errors import BadArgument
from datahub.core.events import Listener, ignore
from datahub.core.refs import Ref, is_shards
from datahub.core.settings import Settings
from datahub.core.sizes import parse_bytes
from datahub.order.formula import OrderOptions
from datahub.store import dataset as store
from datahub.stream.source import LocalShards, ShardSource

ANSWER = 0.9
"""Part of a loader's timeout that an origin has, so that it is the origin that is reported."""


@dataclass(frozen=True, slots=True)
class Where:
    """A source that was asked for, and the cache it is read through."""

    url: str
    cache_dir: Path
    cache_limit: int | None
    cache_asked_for: bool
    timeout: float
    listener: Listener = ignore

    @classmethod
    def of(
        cls,
        settings: Settings,
        source: Any,
        cache_dir: Any,
        cache_limit: Any,
        timeout: float = 600.0,
        listener: Listener = ignore,
    ) -> Where | None:
        """What the arguments say, and the settings where they are silent; None without any source.

        Raises `BadArgument`.
        """
        folder = _folder(cache_dir) or settings.cache_dir
        limit = settings.cache_limit if cache_limit is None else _limit(cache_limit)
        url = settings.source if source is None else _url(source)
        if url is None:
            for name, value in (("cache_dir", cache_dir), ("cache_limit", cache_limit)):
                if value is not None:
                    raise BadArgument(name, value, "the store is read where it is", "give source= too, or leave it out")
            return None
        return cls(url, folder or settings.home / "cache", limit, folder is not None, timeout, listener)

    @classmethod
    def of_shards(cls, shards: str, settings: Settings, where: Where | None) -> Where:
        """What is to be read for a reference that is shards itself; the rest is as ``where`` says."""
        found = replace(where, url=shards) if where is not None else cls.of(settings, shards, None, None)
        assert found is not None
        return found

    def named(self, ref: Ref) -> Where:
        """The same, of a place where datasets go by their names. Raises `BadArgument` for shards without one."""
        from datahub.stream.foreign.naming import names_shards

        if names_shards(self.url):
            hint = "give source= beside the name, or the shards as the reference: wds:..."
            raise BadArgument("DATAHUB_SOURCE", self.url, f"shards are not searched for {ref}", hint)
        return self

    def open(self, ref: Ref, settings: Settings) -> store.Dataset:
        """The dataset at the source. Local folders are read where they are, unless a cache was asked for."""
        from datahub.stream.foreign.naming import holds_shards, names_shards
        from datahub.stream.foreign.opening import open_foreign
        from datahub.stream.remote import Here, open_local, open_remote

        local = _local(self.url)
        here = Here(self.cache_dir, self.cache_limit, self.timeout * ANSWER, self.listener)
        if names_shards(self.url):
            return open_foreign(ref, self.url, here, settings, cached=self.cache_asked_for)
        try:
            if local is not None and not self.cache_asked_for:
                return open_local(ref, local, settings)
            return open_remote(ref, self.url if local is None else local.absolute().as_uri(), here, settings)
        except BadArgument:
            if not holds_shards(self.url if local is None else str(local)):
                raise
        return open_foreign(ref, self.url, here, settings, cached=self.cache_asked_for)


def source_of(ref: Any, source: Any) -> Any:
    """``source``, or the reference where that is shards itself (``wds:...``). Raises `BadArgument` for both."""
    if not is_shards(ref):
        return source
    if source is not None:
        raise BadArgument("source", source, f"{ref} says itself what is read", "give a name, or leave source= out")
    return ref


def shard_source(
    split: store.Split, environ: Mapping[str, str], options: OrderOptions, *, shuffle: bool, readers: int = 1
) -> ShardSource:
    """What reads a split's shards; LOCAL_WORLD_SIZE ranks, each of ``readers`` processes, share the machine's cache."""
    elsewhere = split.dataset.elsewhere
    if elsewhere is None:
        found = getattr(split, "source_here", None)  # shards that are not of a store
        return LocalShards(str(split.dataset.ref), split.shards) if found is None else found()
    from datahub.stream.remote import RemoteVariant

    assert isinstance(elsewhere, RemoteVariant)
    ranks = ranks_here(environ)
    nodes = max(1, _count(environ, "WORLD_SIZE") // ranks) if "LOCAL_WORLD_SIZE" in environ else 1
    everything = int(split.locate["size"].sum(dtype="u8")) if shuffle else 0
    block = split.block * everything // max(1, len(split.locate))
    return elsewhere.source(split, spread=spread(options, nodes, everything, block), ranks=ranks * readers)


def spread(options: OrderOptions, nodes: int, everything: int, block: int) -> int:
    """Bytes among which the shuffled reads of one of ``nodes`` machines are scattered at a time.

    Of each of its lanes, the window that is read and the one after it; everything where machines share lanes, for it
    reads but a few samples of each part then. ``everything`` and ``block``: bytes of the split, and of a block of its
    order.
    """
    if options.lanes % nodes:
        return everything
    own = options.lanes // nodes
    share = everything // nodes
    return share if options.window == "all" else min(share, 2 * own * options.window * block)


def ranks_here(environ: Mapping[str, str]) -> int:
    """Processes of the job on this machine."""
    return _count(environ, "LOCAL_WORLD_SIZE")


def _count(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return max(1, int(text)) if text.isdigit() else 1


def _url(source: Any) -> str:
    if not isinstance(source, str | PathLike) or not fspath(source):
        raise BadArgument("source", source, "is no URL or folder", "write scheme://place, like s3://bucket/prefix")
    return str(fspath(source))


def _local(url: str) -> Path | None:
    """The folder that a URL without scheme, or with file://, stands for."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if "://" in url or url.startswith("wds:") else Path(url).expanduser()


def _folder(cache_dir: Any) -> Path | None:
    if cache_dir is None:
        return None
    if not isinstance(cache_dir, str | PathLike) or not fspath(cache_dir):
        raise BadArgument("cache_dir", cache_dir, "is no folder")
    return Path(fspath(cache_dir)).expanduser().absolute()


def _limit(cache_limit: Any) -> int:
    """Bytes, as a number or as people write them. Raises `BadArgument`."""
    try:
        size = parse_bytes(cache_limit) if isinstance(cache_limit, str) else cache_limit
    except ValueError as error:
        raise BadArgument("cache_limit", cache_limit, str(error)) from error
    if isinstance(size, bool) or not isinstance(size, int):
        raise BadArgument("cache_limit", cache_limit, "is no number of bytes", 'write 500_000_000 or "500MB"')
    if size < 1:
        raise BadArgument("cache_limit", cache_limit, "must be a positive number of bytes")
    return size
