"""Paths of the cache server, in one place: what it routes and what clients ask for."""

from __future__ import annotations

from urllib.parse import quote

from datahub.core.refs import Ref

API = "/v1"
HEALTH, READY, METRICS = "/healthz", "/readyz", "/metrics"
DATASETS = f"{API}/datasets"
BLOBS = f"{API}/blobs"
FILES = f"{API}/files"
JOBS = f"{API}/jobs"
OPENAPI = f"{API}/openapi.json"
CACHE = f"{API}/cache"
WARM, PIN, UNPIN, LEASE, EVICT = (f"{CACHE}/{verb}" for verb in ("warm", "pin", "unpin", "lease", "evict"))
OF = "of"
RECORD = "dataset.json"
BLOCKS = "blocks.bin"
VERSION = "Datahub-Api"
"""The header by which a cache server is known, with every answer; its value is the API's version, `NUMBER`."""
NUMBER = "1"
JOB = "Datahub-Job"
"""The header in which a client says for which job it asks."""


def of_name(name: str) -> str:
    """The variants of a dataset, newest version first."""
    return f"{DATASETS}/{quote(name, safe='')}"


def of_file(ref: Ref, path: str) -> str:
    """A file of a variant, by its path in the variant's folder. ``ref`` is a full one."""
    parts = (ref.name, ref.version or "", ref.variant or "")
    return "/".join([DATASETS, *(quote(part, safe="") for part in parts), quote(path)])


def of_record(ref: Ref) -> str:
    return of_file(ref, RECORD)


def of_sample(ref: Ref, key: str, extension: str) -> str:
    return of_file(ref, f"samples/{key}.{extension}")


def of_blob(sha256: str, ref: Ref | None = None) -> str:
    """``ref``: the variant that it is of, by which a server that never heard of the digest finds it at its origins."""
    return f"{BLOBS}/{sha256}?{OF}={quote(str(ref), safe='@/')}" if ref else f"{BLOBS}/{sha256}"


def of_blocks(sha256: str) -> str:
    """The raw SHA-256 digests of a blob's blocks, end to end."""
    return f"{BLOBS}/{sha256}/blocks"
