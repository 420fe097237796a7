"""Exit code 7: it is not here."""

from __future__ import annotations

from collections.abc import Sequence

from datahub.core.errors.base import DatahubError


class NotInStore(DatahubError):
    exit_code = 7

    def __init__(self, ref: str, home: str, nearest: Sequence[str] = ()) -> None:
        """``nearest``: known names close to one that is neither packed nor known."""
        fetch = f"run `datahub fetch {ref}`, or pass download=True"
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else fetch
        super().__init__(f"{ref} is not in the store at {home}", hint)
        self.ref, self.home, self.nearest = ref, home, tuple(nearest)


class NotServed(DatahubError):
    """A cache server does not know a dataset."""

    exit_code = 7

    def __init__(self, server: str, ref: str, reason: str) -> None:
        super().__init__(f"{server}: {reason}", "see `datahub cache status`, or give the whole NAME@VERSION/VARIANT")
        self.server, self.ref = server, ref


class Offline(DatahubError):
    exit_code = 7

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} would need the network, and offline mode is on",
            "leave --offline (DATAHUB_OFFLINE) out, or give --from DIR",
        )
        self.what = what
