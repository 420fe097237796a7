"""URLs as people, logs and files may see them: without what opens the door."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://"
    r"(?:(?P<user>[^\s/'\"<>]*|[^\s/:\['\"<>]*:(?!\d*[/,])[^\s'\"<>]*)@)?"  # the second: a slash in a password
    r"(?P<place>(?:(?!,[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s?'\"<>])*)"  # of several URLs, up to the next
    r"(?:\?[^\s'\"<>]*?(?=[.:;,)]*(?:[\s'\"<>]|$)))?"
)
SIGNED = re.compile(
    r"(?i)([?&](?:x-(?:amz|goog)-[a-z-]+|sig(?:nature)?|(?:access_?|id_)?token|(?:(?:api|access|secret)[_-]?)?key|"
    r"awsaccesskeyid|password|secret|auth|policy)=)"
    r"[^\s&'\"<>]+"
)
CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes whose URLs name a container where others name a user."""
BUCKETS = ("s3", "s3a", "gs", "gcs")


def shown(text: str) -> str:
    """A URL, or a text with URLs in it: without users, passwords and queries, which may be signatures."""
    if "://" in text:
        text = URL.sub(_without, text)
    return SIGNED.sub(r"\1...", text) if "=" in text else text


def misplaced(url: str) -> str:
    """Why a URL cannot be what was meant, where libraries that refuse it would repeat its password; "" for nothing."""
    scheme, _, rest = url.partition("://")
    if scheme in BUCKETS:
        return (
            "a bucket's URL holds no password: its client takes one from the environment"
            if "@" in rest.partition("/")[0]
            else ""
        )
    if scheme.removeprefix("datahub+") not in ("http", "https"):
        return ""
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    return "" if whole else "its host and port cannot be told; in a password / ? # are %2F %3F %23"


def below(url: str, path: str) -> str:
    """The URL of ``path`` below ``url``, whose query goes with it."""
    place, mark, query = url.partition("?") if url.startswith(("http://", "https://")) else (url, "", "")
    base = place if place.endswith("://") else f"{place.rstrip('/')}/"
    return f"{base}{path}{mark}{query}" if path else url


def _without(found: re.Match[str]) -> str:
    user = found["user"]
    kept = f"{user}@" if user and ":" not in user and found["scheme"] in CONTAINERS else ""
    return f"{found['scheme']}://{kept}{found['place']}"
