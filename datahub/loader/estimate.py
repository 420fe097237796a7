"""On paper: what disk, network and processors a job's nodes need to keep a given images/s. Pure arithmetic.

Streaming fetches blocks of a shard, each as soon as one of the samples in it is the node's. Where the nodes divide the
order's lanes, a node reads only whole lanes of its own: about 1/nodes of the blocks, others each epoch. Where they do
not, it has some samples of each block of its lanes; a bounded cache is then passed by, sample by sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from datahub.core.errors import BadArgument

BLOCK = 4 << 20
"""Bytes that a cache fetches at once."""
AHEAD = 2
"""Windows held at a time: the one that is read and the one that is fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a split: ``packed`` bytes of its shards, mean encoded ``image`` bytes, ``block`` in samples."""

    ref: str
    split: str
    samples: int
    packed: int
    image: float
    block: int
    known_from: str
    """Where these come from, in words."""
    seconds: float
    """Processor seconds to make one image ready."""
    seconds_from: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``rate`` is what one GPU trains, in images/s; ``batch`` is of one GPU."""

    nodes: int
    gpus: int = 8
    rate: float = 1000.0
    batch: int | None = None
    lanes: int = 1
    window: int | str = "all"
    epochs: int = 90

    def __post_init__(self) -> None:
        for name in ("nodes", "gpus", "rate", "lanes", "epochs"):
            if not getattr(self, name) > 0:
                raise BadArgument(name, getattr(self, name), "must be positive")
        if self.window != "all" and not (isinstance(self.window, int) and self.window > 0):
            raise BadArgument("window", self.window, "must be 'all' or a positive number of blocks")
        if self.batch is not None and self.batch * self.gpus * self.nodes % self.lanes:
            whole = self.batch * self.gpus * self.nodes
            raise BadArgument("lanes", self.lanes, f"does not divide the global batch of {whole}")

    @property
    def local(self) -> bool:
        """Whether a node reads its own lanes alone."""
        return self.lanes % self.nodes == 0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to feed a node, in bytes: on disk, over the network in the first epoch, and in the mean later one.

    ``once``: the first come before training, all at once.
    """

    name: str
    disk: float
    first: float
    later: float
    once: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    facts: Facts
    job: Job
    images_per_second: float
    """Of a node."""
    epoch_seconds: float
    steps: int | None
    """Of an epoch, where the batch is given."""
    cores: float
    read_per_second: float
    """Encoded bytes/s that a node takes in, from its disk or the network."""
    ways: list[Way]
    advice: list[str]

    def rate(self, amount: float) -> float:
        """Bytes/s that so many bytes an epoch come to."""
        return amount / self.epoch_seconds


def estimate(facts: Facts, job: Job) -> Estimate:
    """What each node of ``job`` needs for ``facts``."""
    per_node = job.gpus * job.rate
    batch = None if job.batch is None else job.batch * job.gpus * job.nodes
    return Estimate(
        facts=facts,
        job=job,
        images_per_second=per_node,
        epoch_seconds=facts.samples / (per_node * job.nodes),
        steps=None if batch is None else -(-facts.samples // batch),
        cores=per_node * facts.seconds,
        read_per_second=per_node * facts.image,
        ways=_ways(facts, job),
        advice=_advice(facts, job),
    )


def touched(facts: Facts, job: Job) -> float:
    """Share of the blocks that a node (the one with the most) fetches in an epoch without a cache."""
    mean = facts.packed / facts.samples
    runs = 1.0 + BLOCK / (facts.block * mean)  # of one order block each, that a fetched block reaches into
    samples = max(1.0, BLOCK / mean) / runs
    run = max(
        sum(1.0 - (1.0 - share) ** samples for share in lane_shares(job, node)) / job.lanes for node in range(job.nodes)
    )
    return float(1.0 - (1.0 - run) ** runs)


def lane_shares(job: Job, node: int) -> list[float]:
    """Of each lane that ``node`` has a part in, the share that is its own."""
    first, last = node * job.lanes / job.nodes, (node + 1) * job.lanes / job.nodes
    lanes = range(math.floor(first), math.ceil(last))
    return [share for lane in lanes if (share := min(last, lane + 1.0) - max(first, lane)) > 1e-9]


def _ways(facts: Facts, job: Job) -> list[Way]:
    share, packed = touched(facts, job), facts.packed
    kept = packed * (1.0 - float((1.0 - share) ** job.epochs))
    later = (kept - packed * share) / (job.epochs - 1) if job.epochs > 1 else 0.0
    ways = [
        Way("a whole copy on every node", packed, packed, 0.0, once=True),
        Way("streamed into a cache that keeps all", kept, packed * share, later),
    ]
    if job.window != "all" and job.local:
        ways.append(Way("streamed, the window alone kept", _window(facts, job), packed * share, packed * share))
    elif job.window != "all":  # a bounded cache of a node that shares its lanes is not fed by blocks
        own = packed / job.nodes
        ways.append(Way("streamed by samples, the window alone kept", _window(facts, job), own, own))
    return ways


def _window(facts: Facts, job: Job) -> float:
    """Bytes of the windows that a node's lanes hold at a time."""
    lanes = max(len(lane_shares(job, node)) for node in range(job.nodes))
    held = AHEAD * lanes * int(job.window) * facts.block
    return facts.packed * min(1.0, held / facts.samples)


def _advice(facts: Facts, job: Job) -> list[str]:
    found = []
    if not job.local:
        share = touched(facts, job)
        found.append(
            f"{job.nodes} nodes do not divide lanes={job.lanes}: a node streams {share:.0%} of the set each epoch; "
            f"with Order(lanes={job.nodes}), or a multiple, 1/{job.nodes} of it"
        )
    if job.window == "all" and job.nodes > 1:
        found.append('window="all" needs the whole share at once; a window of some blocks bounds the disk')
    return found
