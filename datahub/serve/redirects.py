"""Origins that redirect: to public addresses, or to themselves. What an operator did not name is not reached inside."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from datahub.stream.origin import Files


def guarded(files: Files) -> Files:
    """The same files; over HTTP, redirects into the server's own network are refused."""
    from datahub.stream.web import WebFiles  # imports urllib3, which few servers need

    if isinstance(files, WebFiles):
        files.may_follow = may_follow
    return files


def may_follow(before: str, after: str) -> bool:
    """Whether a redirect leads to where it came from, or to a host all of whose addresses are public."""
    old, new = urlsplit(before), urlsplit(after)
    if (old.scheme, old.netloc) == (new.scheme, new.netloc):
        return True
    try:
        found = socket.getaddrinfo(new.hostname or "", new.port or 443, proto=socket.IPPROTO_TCP)
    except (OSError, ValueError):
        return False
    return bool(found) and all(ipaddress.ip_address(each[4][0]).is_global for each in found)
