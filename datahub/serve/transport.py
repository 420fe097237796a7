"""TLS as a server speaks it."""

from __future__ import annotations

import ssl

from datahub.core import private
from datahub.core.errors import BadArgument
from datahub.serve.config import ServeConfig

PASSPHRASE = ""
"""For a key that has one, which is refused so: OpenSSL would ask the terminal for it."""


def tls(config: ServeConfig) -> ssl.SSLContext | None:
    """Raises `BadArgument`."""
    if config.cert is None:
        return None
    private.check(config.key or config.cert, "--key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.cert, config.key, password=PASSPHRASE)
    except (OSError, ssl.SSLError) as error:
        if not isinstance(error, ssl.SSLError):
            reason = error.strerror or str(error)
        elif error.reason == "KEY_VALUES_MISMATCH":
            reason = "it is the key of another certificate"
        else:
            reason = "they are not PEM, or the key has a passphrase"
        raise BadArgument("--cert", str(config.cert), f"cannot be used with {config.key}: {reason}") from error
    return context
