"""Telling a cache server from a folder on the web, and which variant of a dataset a server is to be asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from datahub.core.errors import BadArgument, ConnectionLost, HttpError, OriginError
from datahub.core.refs import Ref
from datahub.core.urls import below
from datahub.stream.origin import Files, open_files
from datahub.stream.patience import POLICY, pause, read_whole
from datahub.stream.served import SCHEMES, ServedFiles
from datahub.wire import paths
from datahub.wire.client import ServerClient
from datahub.wire.messages import DatasetInfo, Datasets
from datahub.wire.servers import split

BEHIND = 10.0
"""Seconds to find a variant behind servers that answer without it."""


def at_servers(ref: Ref, source: str, seconds: float) -> tuple[ServedFiles | None, str]:
    """The variant of ``ref`` at the cache servers that ``source`` names; else None, and the place to look at.

    ``http://a:8080,http://b:8080,s3://bucket/prefix``: two servers, and where the variant is if both fail. Raises
    `BadArgument` where they have no such dataset, `TokenRefused`, and `OriginError`s.
    """
    urls = split(source)
    servers = [url.removeprefix("datahub+") for url in urls if _is_server(url, seconds, alone=len(urls) == 1)]
    others = [url for url in urls if url.removeprefix("datahub+") not in servers]
    if len(others) > 1 or (others and not servers and len(urls) > 1):
        raise BadArgument("source", source, "names more than one place behind the cache servers", "give one at most")
    if not servers:
        return None, source
    try:
        full = _resolved(ref, servers, source, seconds, patient=not others)
    except OriginError:
        if not others:
            raise
        return None, others[0]
    return ServedFiles(servers, full, _behind(others[0], full) if others else None), source


def _is_server(url: str, seconds: float, *, alone: bool) -> bool:
    """Whether a cache server is there. One of several that does not answer is believed to be one."""
    if url.startswith(SCHEMES):
        return True
    if not url.startswith(("http://", "https://")) or "@" in url or "?" in url:
        return False
    client, failures, deadline = ServerClient(url), 0, time.monotonic() + seconds
    while True:
        try:
            return client.is_server(max(0.001, deadline - time.monotonic()))
        except ConnectionLost as error:
            if not alone:
                return True
            failures += 1
            pause(error, failures, deadline, POLICY, url, seconds)
        except OriginError:  # a web server that fails at a path it may not know
            return False


def _resolved(ref: Ref, servers: Sequence[str], source: str, seconds: float, *, patient: bool) -> Ref:
    """The full reference: the newest version and the default variant that the first server to answer has."""
    if ref.version and ref.variant:
        return ref
    asked = ServedFiles(servers, ref)
    try:
        data = read_whole(asked, "", seconds) if patient else asked.whole("", seconds)
        infos = msgspec.json.decode(data, type=Datasets).datasets
    except HttpError as error:
        if error.status != 404:
            raise
        infos = []
    except msgspec.DecodeError as error:
        raise BadArgument("source", source, f"answered with no list of datasets: {error}") from error
    for info in infos:
        if _fits(ref, info):
            return Ref(info.name, info.version, info.variant)
    known = ", ".join(f"{each.version}/{each.variant}" for each in infos)
    hint = f"it has {ref.name} as {known}" if known else f"see {servers[0]}{paths.DATASETS}"
    raise BadArgument("source", source, f"has no {ref}", hint)


def _fits(ref: Ref, info: DatasetInfo) -> bool:
    variant = info.default if ref.variant is None else info.variant == ref.variant
    return info.name == ref.name and ref.version in (None, info.version) and variant


def _behind(url: str, ref: Ref) -> Files | None:
    """Where a variant is behind the servers; None where it cannot be found now."""
    path = f"{ref.name}/{ref.version}/{ref.variant}"
    for place in (url, below(url, path), below(url, f"datasets/{path}")):
        files = open_files(place)
        try:
            files.whole(paths.RECORD, BEHIND)
        except OriginError:
            continue
        return files
    return None
