"""URLs as people, logs and files may see them: without what opens the door."""

from __future__ import annotations

import re

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


def shown(text: str) -> str:
    """A URL, or a text with URLs in it: without users, passwords and queries, which may be signatures."""
    if "://" in text:
        text = URL.sub(_without, text)
    return SIGNED.sub(r"\1...", text) if "=" in text else text


def below(url: str, path: str) -> str:
    """The URL of ``path`` below ``url``, whose query goes with it."""
    place, mark, query = url.partition("?") if url.startswith(("http://", "https://")) else (url, "", "")
    base = place if place.endswith("://") else f"{place.rstrip('/')}/"
    return f"{base}{path}{mark}{query}" if path else url


def _without(found: re.Match[str]) -> str:
    user = found["user"]
    kept = f"{user}@" if user and ":" not in user and found["scheme"] in CONTAINERS else ""
    return f"{found['scheme']}://{kept}{found['place']}"
