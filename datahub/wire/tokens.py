"""The token a client shows a cache server: from DATAHUB_TOKEN or the file that DATAHUB_TOKEN_FILE names.

It is read when it is used and kept nowhere: not in settings, URLs, pickles or a loader's state. The name of the job
that a server counts comes from the environment too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from datahub.core import private
from datahub.core.errors import BadArgument

TOKEN, FILE = "DATAHUB_TOKEN", "DATAHUB_TOKEN_FILE"
JOB = re.compile(r"[A-Za-z0-9._-]{1,64}")
FORM = re.compile(r"[A-Za-z0-9._~+/=-]+")
"""RFC 6750, 2.1."""


def token_of(environ: Mapping[str, str]) -> str | None:
    """Raises `BadArgument`, which does not show the token."""
    if token := environ.get(TOKEN, "").strip():
        return _checked(token, TOKEN)
    if path := environ.get(FILE):
        tokens = read_tokens(Path(path), FILE)
        if not tokens:
            raise BadArgument(FILE, path, "holds no token")
        return tokens[0]
    return None


def job_of(environ: Mapping[str, str]) -> str:
    """The job that this process belongs to, as the server is to count it; "" for none.

    DATAHUB_JOB, else Slurm's, else torchrun's run, which is "none" where nobody named it.
    """
    elastic = environ.get("TORCHELASTIC_RUN_ID", "")
    name = environ.get("DATAHUB_JOB") or environ.get("SLURM_JOB_ID") or ("" if elastic == "none" else elastic)
    return name if JOB.fullmatch(name) else ""


def read_tokens(path: Path, name: str) -> list[str]:
    """The tokens of a file, one a line; what follows ``#`` is a comment. ``name`` is what the caller calls the file.

    Raises `BadArgument`, also for a file that everybody may write."""
    private.check(path, name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise BadArgument(name, str(path), f"cannot be read: {reason}") from error
    return [_checked(token, name) for line in lines if (token := line.partition("#")[0].strip())]


def _checked(token: str, name: str) -> str:
    if not FORM.fullmatch(token):
        raise BadArgument(name, "...", "is no token", "write letters, digits and ._~+/=- only, without spaces")
    return token
