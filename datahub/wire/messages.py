"""The JSON that goes over the wire. Unknown fields are passed over, so that either side may be newer."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Service(Message, frozen=True, kw_only=True):
    """``GET /v1``: who answers."""

    service: str
    """Always ``datahub-cache``."""
    api: int
    version: str
    """Of the datahub that serves."""


class DatasetInfo(Message, frozen=True, kw_only=True):
    """A packed variant that can be had here."""

    name: str
    version: str
    variant: str
    bytes: int
    """Of all its files."""
    samples: dict[str, int]
    """Of each split."""
    etag: str
    """SHA-256 of its record."""
    local: bool
    """Whether all of it is on the server's own disk, not fetched on demand."""
    default: bool = False
    """Whether the name and version alone stand for this variant."""
    title: str = ""


class Datasets(Message, frozen=True, kw_only=True):
    """``GET /v1/datasets`` and ``/v1/datasets/<name>``, newest versions first."""

    datasets: list[DatasetInfo]


class Failure(Message, frozen=True, kw_only=True):
    """The body of every answer that is an error."""

    error: str
    """The name of the kind of error, as in `datahub.core.errors`."""
    message: str
    next: str = ""
    retryable: bool = False


def encode(message: Message) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def failure_of(body: bytes) -> Failure | None:
    """What an answer says of an error, if it says it so."""
    try:
        return msgspec.json.decode(body, type=Failure)
    except msgspec.DecodeError:
        return None
