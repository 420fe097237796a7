"""Exit code 2: the caller asked for something that cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from datahub.core.errors.base import DatahubError, Problem

MOST_SHOWN = 300
"""Characters of a value that a message shows."""


class UsageError(DatahubError):
    exit_code = 2


class BadReference(UsageError):
    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text!r} is not a dataset reference: {reason}", "write NAME[@VERSION][/VARIANT]")
        self.text, self.reason = text, reason


class BadArgument(UsageError):
    def __init__(self, name: str, value: object, reason: str, next_step: str = "") -> None:
        super().__init__(f"{name}={_shown(value)}: {reason}", next_step)
        self.name, self.value, self.reason = name, value, reason


def _shown(value: object) -> str:
    """A value on one line; of an array or a long list, how it begins."""
    text = repr(value)
    if len(text) > MOST_SHOWN or "\n" in text:
        text = " ".join(text.split())
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


class NotYetSupported(UsageError):
    """A documented argument whose feature has not landed: refused, never ignored."""

    def __init__(self, name: str, value: object, instead: str = "leave it at its default") -> None:
        super().__init__(f"{name}={value!r} is not supported by this version", instead)
        self.name, self.value = name, value


class UnknownDataset(UsageError):
    def __init__(self, name: str, nearest: Sequence[str] = ()) -> None:
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see `datahub list`"
        super().__init__(f"no dataset is called {name!r}", hint)
        self.name, self.nearest = name, tuple(nearest)


class UnknownVersion(UsageError):
    def __init__(self, name: str, version: str, known: Sequence[str]) -> None:
        super().__init__(f"{name} has no version {version!r}", f"known: {', '.join(known) or 'none'}")
        self.name, self.version, self.known = name, version, tuple(known)


class UnknownVariant(UsageError):
    def __init__(self, name: str, variant: str, known: Sequence[str]) -> None:
        super().__init__(f"{name} has no variant {variant!r}", f"known: {', '.join(known) or 'none'}")
        self.name, self.variant, self.known = name, variant, tuple(known)


class UnknownSplit(UsageError):
    def __init__(self, ref: str, split: str, known: Sequence[str]) -> None:
        super().__init__(f"{ref} has no split {split!r}", f"it has {', '.join(known)}")
        self.ref, self.split, self.known = ref, split, tuple(known)


class ManifestInvalid(UsageError):
    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path, self.problems = path, tuple(problems)
        count = len(self.problems)
        listed = "; ".join(f"{p.place}: {p.message}" for p in self.problems)
        super().__init__(f"{path} has {count} problem{'s' if count != 1 else ''}: {listed}")


class StateMismatch(UsageError):
    """A loader state that belongs to another run; ``changed`` names what differs."""

    def __init__(
        self, changed: Sequence[str], next_step: str = "restore it into a loader with the same settings"
    ) -> None:
        super().__init__(f"the state does not fit this loader: {'; '.join(changed)}", next_step)
        self.changed = tuple(changed)
