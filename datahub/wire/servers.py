"""Which of several cache servers has what: rendezvous hashing.

Every client ranks the servers for a key in the same order, so each server keeps its share of the blobs, and where one
is gone only its share moves, to the next in rank. (Thaler and Ravishankar, 1998.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

BETWEEN = re.compile(r",\s*(?=[a-zA-Z][a-zA-Z0-9+.-]*://)")


def ranked(servers: Sequence[str], key: str) -> list[str]:
    """The servers, the one to ask first for ``key`` first."""
    return sorted(servers, key=lambda server: (_weight(server, key), server), reverse=True)


def split(urls: str) -> list[str]:
    """``http://a:8080,http://b:8080`` -> both; a comma inside a URL does not part it."""
    return [each.strip() for each in BETWEEN.split(urls)]


def _weight(server: str, key: str) -> bytes:
    return blake2b(f"{server}\n{key}".encode(), digest_size=8).digest()
