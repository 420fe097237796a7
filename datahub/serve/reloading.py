"""What SIGHUP asks for: tokens, the certificate and the log's file are read anew, and no connection is lost."""

from __future__ import annotations

import ssl

from datahub.core.errors import DatahubError
from datahub.core.events import Note
from datahub.serve.config import tokens_of
from datahub.serve.log import Lines
from datahub.serve.state import Server
from datahub.serve.transport import PASSPHRASE, tls


def read_again(server: Server, context: ssl.SSLContext | None, lines: Lines) -> None:
    """All of it; nothing where something is wrong with it, which the log tells. ``context``: of new connections."""
    config = server.config
    try:
        lines.reopen()
        tokens = tokens_of(config)
        tls(config)  # tried before the one in use is changed
    except DatahubError as error:
        server.listener(Note("serve", f"goes on with what it had: {error}", warning=True))
        return
    server.tokens = tokens
    if context is not None and config.cert is not None:
        context.load_cert_chain(config.cert, config.key, password=PASSPHRASE)
    server.listener(Note("serve", "tokens, certificate and log file were read again"))
