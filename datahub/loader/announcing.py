"""What a loader says of itself to the cache servers that it reads from: what it reads, in which order, how far it is.

One voice for a whole job: rank 0 speaks, of several workers of a DataLoader the first. The parts of a mixture are a job
each. Weighted sampling draws by a column of the index, in an order that a server does not work out: it is announced
without one.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
import numpy as np
from torch.utils.data import get_worker_info

from datahub.loader.course import Course
from datahub.loader.members import Opened
from datahub.loader.resident import Residency
from datahub.loader.schedule import Plan
from datahub.order.mixture import Mixture
from datahub.order.strata import Strata
from datahub.store.dataset import Split
from datahub.store.selection import WHOLE
from datahub.stream.cached import CachedShards
from datahub.stream.herald import HERALD, PARTING, Voice, say_end
from datahub.stream.joined import JoinedShards
from datahub.stream.served import ServedFiles
from datahub.stream.source import ShardSource
from datahub.wire.messages import MOST_KEPT, MOST_MEMBERS, MOST_WHERE, JobAsked, JobMix, JobOrder
from datahub.wire.tokens import job_of

TTL = 90.0
"""Seconds after which a job that says nothing has ended."""
BETWEEN = 600.0
"""The same where workers speak: they come and go with the loops of their DataLoader."""
LONGEST_RUN, LONGEST_SPLIT = 40, 16
"""Characters of the run's and the split's name in a job's."""
SHARE = 100
"""One part in so many of the time may go into looking at what the machine's cache has."""
Where = tuple[int, int, int]
"""Epoch and position of the whole job, and the position up to which it has asked for samples."""
Progress = Callable[[], Callable[[], Where | None] | None]


class Announced:
    """The jobs that a loader is at cache servers; none where it reads from none.

    Not ``aloud``, requests carry the job's name, and nothing else is said.
    """

    def __init__(self, members: Opened, source: ShardSource, residency: Residency, *, aloud: bool = True) -> None:
        self._members, self._source, self._residency, self._aloud = members, source, residency, aloud
        self.run = secrets.token_hex(4)
        """What all processes of this loader call the run, where nothing in the environment names it."""
        self._voices: list[Voice] | None = None

    def begin(self, course: Course, progress: Progress) -> None:
        """A loop begins: requests carry the job's name from now on, and the job is said to run.

        ``progress`` gives the method that says where the loader is, or None once it is gone: it is not kept alive.
        """
        plan = course.schedule.plan
        if self._voices is None:
            self._voices = self._made(course, progress)
        if self._aloud and plan.topology.rank == 0 and _seat() in (None, 0):
            for voice in self._voices:
                HERALD.begin(voice)

    def end(self) -> None:
        for voice in self._voices or []:
            HERALD.end(voice)

    def part(self, course: Course) -> None:
        """End at once what worker processes have announced."""
        alone = self._aloud and course.schedule.plan.topology.rank == 0
        for voice in self._made(course, lambda: None) if alone else []:
            voice.said = True
            say_end(voice, PARTING)

    def _made(self, course: Course, progress: Progress) -> list[Voice]:
        plan, found = course.schedule.plan, []
        for number, split in enumerate(self._members.members):
            files = getattr(split.dataset.elsewhere, "files", None)
            if isinstance(files, ServedFiles):
                run = _run(os.environ, plan.topology.world_size) or self.run
                job = _name(run, split, f"{number} {course.digest}")
                files.read_for(job)
                said = JobAsked(
                    job=job,
                    run=run[:LONGEST_RUN],
                    dataset=str(split.dataset.ref),
                    split=split.name,
                    order=_order(plan, self._members, number),
                    ttl=TTL if _seat() is None else BETWEEN,
                )
                kept = _Kept(self._source, number) if plan.topology.nodes == 1 else None
                say = partial(self._say, progress, said, _share(self._members, number), kept)
                found.append(Voice(job, files.servers, say, ends=_seat() is None))
        return found

    def _say(self, progress: Progress, said: JobAsked, share: float, kept: _Kept | None) -> JobAsked | None:
        """What there is to say now; None where the loader is gone."""
        told = progress()
        where = None if told is None else told()
        if where is None:
            return None
        epoch, position, asked = where
        now = msgspec.structs.replace(
            said, epoch=epoch, position=int(position * share), ahead=int((asked - position) * share)
        )
        if self._residency.chosen.kind != "stream":
            return msgspec.structs.replace(now, order=None)  # the shards are read once, to be decoded or held
        return now if kept is None else msgspec.structs.replace(now, kept=kept())


class _Kept:
    """The bitmap of what the machine's cache has of part ``number``; looked at again when that costs little.

    Only where one machine reads: of others it is not known here.
    """

    def __init__(self, source: ShardSource, number: int) -> None:
        self._source = source.sources[number] if isinstance(source, JoinedShards) else source
        self._found, self._again = "", 0.0

    def __call__(self) -> str:
        began = time.monotonic()
        if began >= self._again and isinstance(self._source, CachedShards):
            self._found = bitmap(self._source.kept())
            self._again = began + SHARE * (time.monotonic() - began)
        return self._found


def bitmap(kept: Sequence[bool]) -> str:
    """As `JobAsked.kept`: "" for none, and for more blocks than it holds."""
    text = base64.b64encode(np.packbits(kept, bitorder="little").tobytes()).decode() if any(kept) else ""
    return text if len(text) <= MOST_KEPT else ""


def _order(plan: Plan, members: Opened, number: int) -> JobOrder | None:
    """Of part ``number``; None where a server cannot work it out."""
    chosen, population, split = members.selection, members.population, members.members[number]
    if isinstance(population, Strata) or len(chosen.where) > MOST_WHERE or not -(1 << 63) <= plan.seed < 1 << 63:
        return None
    mix = None
    if isinstance(population, Mixture):
        if len(population.members) > MOST_MEMBERS:
            return None
        samples = [each.blocks.samples for each in population.members]
        mix = JobMix(weights=list(population.shares.weights), samples=samples, member=number, stop=population.stop)
    return JobOrder(
        seed=plan.seed,
        batch=plan.batch,
        window=plan.options.window,
        lanes=plan.options.lanes,
        shuffle=plan.shuffle,
        part=[] if chosen.part == WHOLE else list(chosen.part),
        max_samples=min(chosen.max_samples or 0, len(split)),
        where=chosen.where,
        mix=mix,
    )


def _share(members: Opened, number: int) -> float:
    """Of the positions of a mixture, those that are a part's."""
    if not isinstance(members.population, Mixture):
        return 1.0
    weights = members.population.shares.weights
    return weights[number] / sum(weights)


def _seat() -> int | None:
    """Which worker of a DataLoader this process is."""
    info = get_worker_info()
    return None if info is None else info.id


def _run(environ: Mapping[str, str], world_size: int) -> str:
    """What every rank calls the run: what the environment says, else where its ranks meet; "" for neither."""
    named = job_of(environ)
    if named or world_size == 1 or "MASTER_PORT" not in environ:
        return named
    place = f"{environ.get('MASTER_ADDR', '')}:{environ['MASTER_PORT']}"
    return hashlib.sha256(place.encode()).hexdigest()[:8]


def _name(run: str, split: Split, rest: str) -> str:
    """``RUN.SPLIT.xxxx``: loaders that read otherwise are other jobs."""
    mark = hashlib.sha256(f"{run} {split.dataset.ref} {split.name} {rest}".encode()).hexdigest()[:4]
    return f"{run[:LONGEST_RUN]}.{split.name[:LONGEST_SPLIT]}.{mark}"
