"""Telling cache servers how far this process's jobs are: one thread, beside everything that reads.

Nothing here may hold up training or raise into it. A server that does not know what is said, or refuses it, is left
alone; one that cannot be reached is told later. What is never said again ends at the server by itself.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from datahub.core.errors import DatahubError, HttpError, TokenRefused
from datahub.wire.client import ServerClient
from datahub.wire.messages import JobAsked, encode
from datahub.wire.paths import JOBS

EVERY = 3.0
"""Seconds between two messages about a job."""
SECONDS = 2.0
"""What one message may take."""
LATER = 60.0
"""Seconds after which a server that fails is tried again at the latest."""
PARTING = 1.0
"""Seconds that a program's exit waits for its jobs to be ended."""


@dataclass(frozen=True, slots=True)
class Line:
    """One server that is told of a job. ``after``: not before then; ``failures`` in a row."""

    client: ServerClient
    after: float = 0.0
    failures: int = 0


@dataclass(eq=False, slots=True)
class Voice:
    """A job that is announced. ``say`` gives what is to be said now; None: nothing, its owner is gone.

    ``ends``: whether the job ends where its owner goes.
    """

    job: str
    servers: Sequence[str]
    say: Callable[[], JobAsked | None]
    ends: bool = True
    said: bool = False
    """Whether some server was told."""
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = [Line(ServerClient(each, self.job)) for each in self.servers]


class Herald:
    """Speaks for the voices that were begun and not ended. Safe in threads; a fork's child begins without any."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process, self._changed = os.getpid(), threading.Condition()
        self._voices: list[Voice] = []
        self._ended: list[Voice] = []
        self._thread: threading.Thread | None = None
        self._hurry = False

    def begin(self, voice: Voice) -> None:
        self._after_fork()
        with self._changed:
            if voice not in self._voices:
                self._voices.append(voice)
                self._hurry = True
                self._changed.notify_all()
            if self._thread is None:
                atexit.unregister(self.part)
                atexit.register(self.part)
                self._thread = threading.Thread(target=self._run, name="datahub-herald", daemon=True)
                with suppress(RuntimeError):  # the interpreter is ending
                    self._thread.start()

    def end(self, voice: Voice) -> None:
        """Say nothing more, and that the job has ended; the caller does not wait for it."""
        self._after_fork()
        with self._changed:
            if voice in self._voices:
                self._voices.remove(voice)
                self._ended.append(voice)
                self._changed.notify_all()

    def part(self, seconds: float = PARTING) -> None:
        """End every job, within so many seconds."""
        if self._process != os.getpid():
            return
        with self._changed:
            self._ended += self._voices
            self._voices = []
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def _after_fork(self) -> None:
        if self._process != os.getpid():
            self._begin()  # its thread and locks are the parent's

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._voices and not self._ended:
                    self._thread = None
                    return
                if not self._hurry and not self._ended:
                    self._changed.wait(EVERY)
                self._hurry = False
                voices, ended = list(self._voices), self._ended
                self._ended = []
            for voice in ended:
                say_end(voice, SECONDS)
            for voice in [] if ended else voices:
                if not _say(voice):
                    self.end(voice)


def _say(voice: Voice) -> bool:
    """Tell the servers whose turn it is; False where there is nobody to tell, or nothing more to say."""
    now = time.monotonic()
    due = [each for each in voice.lines if each.after <= now]
    if not voice.lines:
        return False
    with suppress(Exception):  # a loader that is being taken apart has nothing to say just now
        said = voice.say()
        if said is None:
            return False
        voice.lines = [each for each in voice.lines if each not in due]
        voice.lines += [after for each in due if (after := _told(voice, each, said)) is not None]
    return True


def _told(voice: Voice, line: Line, said: JobAsked) -> Line | None:
    """The server's line from now on; None: it wants to hear nothing."""
    if len(voice.servers) > 1:
        said = msgspec.structs.replace(said, servers=list(voice.servers), here=line.client.url)
    try:
        line.client.send("POST", JOBS, encode(said), SECONDS)
    except (DatahubError, OSError) as error:
        if isinstance(error, TokenRefused) or (isinstance(error, HttpError) and error.status not in AGAIN):
            return None
        failures = line.failures + 1
        return Line(line.client, time.monotonic() + min(LATER, EVERY * 2**failures), failures)
    voice.said = True
    return Line(line.client)


AGAIN = (408, 429, 500, 502, 503, 504)
"""Statuses after which a server may be told again."""


def say_end(voice: Voice, seconds: float) -> None:
    """Tell the servers that the job has ended; they find out by themselves where that fails."""
    if voice.said and voice.ends:
        for line in voice.lines:
            with suppress(DatahubError, OSError):
                line.client.send("DELETE", f"{JOBS}/{voice.job}", b"", seconds)


HERALD = Herald()
"""This process's."""
