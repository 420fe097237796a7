"""What every error of datahub is, and one thing wrong with a file."""

from __future__ import annotations

from typing import Any, NamedTuple

from datahub.core.urls import shown


class DatahubError(Exception):
    """Base of everything datahub raises on purpose. What it says holds no password or signature of a URL."""

    exit_code = 1
    retryable = False

    def __init__(self, message: str, next_step: str = "") -> None:
        self.message, self.next_step = shown(message), shown(next_step)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}; {self.next_step}" if self.next_step else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Leaves take their facts, not a message: the default would rebuild a worker's error with wrong arguments.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[DatahubError], args: tuple[Any, ...], facts: dict[str, Any]) -> DatahubError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(facts)
    return error


class Problem(NamedTuple):
    """One thing wrong with a file: a dotted place such as ``files[2].sha256`` and what is wrong there."""

    place: str
    message: str
