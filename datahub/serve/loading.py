"""What a process that serves is made of, loaded at once: most of what a server's start costs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module


def load(*, clients: bool) -> None:
    """Import it all. ``clients``: whether somebody in this process may ask others by aiohttp, as file systems do."""
    with nullcontext() if clients else _no_authorities():
        import_module("aiohttp")
    import_module("datahub.serve.serving")


@contextmanager
def _no_authorities() -> Iterator[None]:
    """aiohttp makes its clients' two TLS contexts as it is imported, and reads all of the machine's certificate
    authorities for each: a seventh of a server's start. Without them they trust nobody."""
    ssl.SSLContext.set_default_verify_paths = lambda _: None  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # that of the class it inherits from is seen again
