"""Dataset references: ``NAME[@VERSION][/VARIANT]``, as people type them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from datahub.core.errors import BadReference

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
VERSION = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z._+-]{0,30}[0-9A-Za-z])?")
VARIANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
SHARDS = "wds:"
"""How a reference begins that is no name but shards themselves: ``wds:train-{000000..000146}.tar``."""
SPLIT = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Ref:
    """A dataset, perhaps at a version, perhaps as a variant; ``None`` means "the default"."""

    name: str
    version: str | None = None
    variant: str | None = None

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        variant = f"/{self.variant}" if self.variant else ""
        return f"{self.name}{version}{variant}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Read ``NAME[@VERSION][/VARIANT]``; raises `BadReference`."""
        head, slash, variant = text.partition("/")
        name, at, version = head.partition("@")
        for part, present, pattern, what in (
            (name, "yes", NAME, "name"),
            (version, at, VERSION, "version"),
            (variant, slash, VARIANT, "variant"),
        ):
            if present and not pattern.fullmatch(part):
                raise BadReference(text, f"{part!r} is not a {what}" if part else f"the {what} is empty")
        return cls(name, version or None, variant or None)


def is_shards(ref: object) -> bool:
    """Whether a reference is no name but shards themselves."""
    return isinstance(ref, str) and ref.startswith(SHARDS)


def reference(text: str) -> Ref | str:
    """What a loader takes: the `Ref`, or the text itself where it is shards. Raises `BadReference`."""
    return text if is_shards(text) else Ref.parse(text)


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts ``1.10`` after ``1.9`` and numbers after words."""
    parts = re.findall(r"\d+|[A-Za-z]+", version)
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)
