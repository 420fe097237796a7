"""The JSON that goes over the wire. Unknown fields are passed over, so that either side may be newer."""

from __future__ import annotations

from typing import Annotated, Literal

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


JobName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
TTL = 600.0
LONGEST = 7 * 86400.0


class JobOrder(Message, frozen=True, kw_only=True):
    """What decides the order in which a job reads: the parameters of the order formula."""

    seed: int = 0
    batch: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)] = 1
    """Samples of a global batch."""
    window: Literal["all"] | Annotated[int, msgspec.Meta(ge=1)] = "all"
    lanes: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 1
    shuffle: bool = True


class JobAsked(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/jobs``: a job says what it reads and how far it is; saying it again renews it."""

    job: JobName
    dataset: str
    """A full reference, ``NAME@VERSION/VARIANT``."""
    split: Annotated[str, msgspec.Meta(max_length=64)] = "train"
    order: JobOrder = msgspec.field(default_factory=JobOrder)
    epoch: Count = 0
    position: Count = 0
    """Samples that the whole job has consumed in the epoch."""
    ttl: Annotated[float, msgspec.Meta(gt=0, le=LONGEST)] = TTL
    """Seconds after which the job is taken to have ended, unless it says something before."""


class Job(JobAsked, frozen=True, kw_only=True):
    """A job that lives."""

    left: float
    """Seconds until it is taken to have ended."""


class Jobs(Message, frozen=True, kw_only=True):
    """``GET /v1/jobs``."""

    jobs: list[Job]


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
