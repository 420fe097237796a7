"""Progress as events. Stages emit them; a progress bar, a log or a test listens. Libraries never print."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from datahub.core.urls import shown


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` units of one ``item`` of a ``stage`` ("download", "verify", "pack", ...).

    ``total`` is None while unknown. The last event of an item has ``done == total``.
    """

    stage: str
    item: str
    done: int
    total: int | None
    unit: str = "bytes"


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person may want to know: a mirror that failed, a lock that is waited for. It holds no password or
    signature of a URL."""

    stage: str
    message: str
    warning: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shown(self.message))


Event = Progress | Note
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that hears nothing."""
