"""The JSON that goes over the wire. Unknown fields are passed over, so that either side may be newer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from datahub.core.learning import learn
from datahub.core.refs import NAME, VARIANT, VERSION

REFERENCE = f"^{NAME.pattern}(?:@{VERSION.pattern})?(?:/{VARIANT.pattern})?$"
FULL_REFERENCE = f"^{NAME.pattern}@{VERSION.pattern}/{VARIANT.pattern}$"


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


JobName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$(?!\n)")]
OPTIONAL_NAME = r"^[A-Za-z0-9._-]{0,64}$(?!\n)"
"""The end is the text's: to Python, ``$`` is also before a last newline."""
NoneOrName = Annotated[str, msgspec.Meta(pattern=OPTIONAL_NAME)]
Reference = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": REFERENCE})]
FullReference = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": FULL_REFERENCE})]
"""Their forms are documented here; what is wrong with one is said in words by whoever reads it."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
TTL = 600.0
LONGEST, LONGEST_LEASE = 7 * 86400.0, 366 * 86400.0
MOST_MEMBERS, MOST_WHERE = 64, 1024
MOST_KEPT = 48 << 10
"""Characters of a job's bitmap: 294,912 blocks, 1.2 TB."""


Thousandths = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Samples = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class JobMix(Message, frozen=True, kw_only=True):
    """The mixture that a job reads one member of: what decides which of its positions are that member's."""

    weights: Annotated[list[Thousandths], msgspec.Meta(min_length=2, max_length=MOST_MEMBERS)]
    samples: Annotated[list[Samples], msgspec.Meta(min_length=2, max_length=MOST_MEMBERS)]
    """Of each member, as its selection leaves them."""
    member: Annotated[int, msgspec.Meta(ge=0, lt=MOST_MEMBERS)]
    """Which of them the job's dataset is."""
    stop: Literal["longest", "shortest"] | Samples = "longest"


class JobOrder(Message, frozen=True, kw_only=True):
    """What decides the order in which a job reads: the parameters of the order formula, and of the selection."""

    seed: int = 0
    batch: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)] = 1
    """Samples of a global batch."""
    window: Literal["all"] | Annotated[int, msgspec.Meta(ge=1)] = "all"
    lanes: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 1
    shuffle: bool = True
    part: Annotated[list[tuple[Share, Share]], msgspec.Meta(max_length=64)] = []
    """Ranges of key hashes that it reads; none: all."""
    max_samples: Count = 0
    """The first so many of them by their hashes; 0: all."""
    where: Annotated[str, msgspec.Meta(max_length=MOST_WHERE)] = ""
    """The filter that comes before both, in its one written form."""
    mix: JobMix | None = None


class JobAsked(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/jobs``: a job says what it reads and how far it is; saying it again renews it."""

    job: JobName
    dataset: FullReference
    """``NAME@VERSION/VARIANT``."""
    split: Annotated[str, msgspec.Meta(max_length=64)] = "train"
    run: NoneOrName = ""
    """What it is part of, a run with several loaders: leases of that name are renewed with it."""
    order: JobOrder | None = None
    """None: its order is none that a server can work out (weighted sampling); nothing is foreseen for it."""
    kept: Annotated[str, msgspec.Meta(max_length=MOST_KEPT)] = ""
    """Base64 of a bitmap of the blocks of the split's shards, lowest bit first: those it has itself and will not ask
    for. Never in an answer."""
    servers: Annotated[list[Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=64)] = []
    """Where it reads from several: all of them, as it names them; ``here`` is the one that is told."""
    here: Annotated[str, msgspec.Meta(max_length=256)] = ""
    epoch: Count = 0
    position: Count = 0
    """Samples that the whole job has consumed in the epoch; of a mixture, its share of them."""
    ahead: Count = 0
    """Samples after those that it has asked for already."""
    ttl: Annotated[float, msgspec.Meta(gt=0, le=LONGEST)] = TTL
    """Seconds after which the job is taken to have ended, unless it says something before."""


class Job(JobAsked, frozen=True, kw_only=True):
    """A job that lives."""

    left: float
    """Seconds until it is taken to have ended."""


class Jobs(Message, frozen=True, kw_only=True):
    """``GET /v1/jobs``."""

    jobs: list[Job]


class Command(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/cache/<verb>``."""

    ref: Reference
    """NAME[@VERSION][/VARIANT]; version and variant by default as a loader takes them."""
    job: Annotated[str, msgspec.Meta(extra_json_schema={"pattern": OPTIONAL_NAME})] = ""
    """For a lease: who wants it."""
    seconds: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": LONGEST_LEASE})] = 3600.0
    """For a lease: how long it lasts; 0 ends it."""
    split: str = ""
    """To warm one split only."""


class Hold(Message, frozen=True, kw_only=True):
    """Why a dataset is not evicted: a pin, or a job's lease."""

    ref: str
    bytes: int
    job: str = ""
    seconds: float | None = None
    """That a lease lasts still."""


class Verdict(Message, frozen=True, kw_only=True):
    """Whether a pin or lease was granted, which it is where all that is held fits together."""

    ref: str
    granted: bool
    bytes: int
    """What it takes of the cache: nothing for what is in the server's own store."""
    room: int
    """Bytes that could be held for it."""
    limit: int
    held: list[Hold]
    fits: list[str] = []
    """Where it is refused: other variants of the dataset that would fit."""
    error: str = ""
    message: str = ""
    next: str = ""
    """The same in words, as of every `Failure`."""


class Warming(Message, frozen=True, kw_only=True):
    """A dataset that is being fetched before it is asked for."""

    ref: str
    bytes: int
    done: int
    failed: int = 0
    """Blocks that no origin gave."""
    error: str = ""
    running: bool = True


class Evicted(Message, frozen=True, kw_only=True):
    ref: str
    freed: int
    kept: int
    """Bytes that stayed: a job said that it will read them soon, or somebody reads them now."""


class Cached(Message, frozen=True, kw_only=True):
    """A dataset of which blocks are here."""

    ref: str
    bytes: int
    of: int
    """Bytes of all its files that come from an origin; 0 where it is not known any more."""


class Status(Message, frozen=True, kw_only=True):
    """``GET /v1/cache``."""

    bytes: int
    limit: int
    blocks: int
    filling: int
    cached: list[Cached]
    held: list[Hold]
    warming: list[Warming]


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


learn(Service, Datasets, Job, JobAsked, Jobs, Command, Verdict, Warming, Evicted, Status, Failure)
